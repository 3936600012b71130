// No program is built of it: its definitions of PodMonitor and PrometheusRule are what ci/chart checks by.
module roadseg.example/tools/monitoring

go 1.26.8

require github.com/prometheus-operator/prometheus-operator v0.85.0
