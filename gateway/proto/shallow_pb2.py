"""Messages of `shallow.proto`; `shallow_pb2.pyi` beside this file holds their types."""

from .registry import message

DataContent = message("streamflow.shallow.DataContent")
DataRequest = message("streamflow.shallow.DataRequest")
DataRequestList = message("streamflow.shallow.DataRequestList")
DocList = message("streamflow.shallow.DocList")
Endpoints = message("streamflow.shallow.Endpoints")
Exc = message("streamflow.shallow.Exc")
Header = message("streamflow.shallow.Header")
Info = message("streamflow.shallow.Info")
Route = message("streamflow.shallow.Route")
SingleDocumentRequest = message("streamflow.shallow.SingleDocumentRequest")
Status = message("streamflow.shallow.Status")
