"""Messages of `streamflow.proto`; `streamflow_pb2.pyi` beside this file holds their types."""

from .registry import message

Request = message("streamflow.v1.Request")
Response = message("streamflow.v1.Response")
ResultRequest = message("streamflow.v1.ResultRequest")
Requests = message("streamflow.v1.Requests")
Responses = message("streamflow.v1.Responses")
