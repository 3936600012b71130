// Nothing is built from this: ci/chart checks against its definitions of Gateway and HTTPRoute, and the journey installs them.
module roadseg.example/tools/gateway

go 1.26.8

require sigs.k8s.io/gateway-api v1.6.3
