// No program is built of it: its definitions of Gateway and HTTPRoute are what ci/chart checks by and what the cluster under test gets.
module roadseg.example/tools/gateway

go 1.26.8

require sigs.k8s.io/gateway-api v1.6.3
