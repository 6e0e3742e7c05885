"""Triton's messages under the name that they were generated with: Ray pickles requests, which looks for their classes there."""

from tritonclient.grpc.service_pb2 import *  # noqa: F403
