"""The topology of docker-compose.yml as Kubernetes manifests: deploy/k8s/base, written by `make kubernetes`."""
