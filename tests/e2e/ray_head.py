"""A Ray of one machine that takes Serve configs over HTTP, as a cluster's head does; it ends with its standard input.

Started as `python ray_head.py PORT`, where PORT is the one that configs are put to. Once Ray has started, it prints
its address and the port of its metrics in one line.
"""

import sys

import ray


def main() -> None:
    ray.init(
        address="local",
        num_cpus=16,  # in name only: room for new replicas beside the old ones
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=int(sys.argv[1]),
        log_to_driver=False,
    )
    (node,) = ray.nodes()
    print("ready", ray.get_runtime_context().gcs_address, node["MetricsExportPort"], flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
