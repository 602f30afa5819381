"""Messages of `jobs.proto`; `jobs_pb2.pyi` beside this file holds their types."""

from .registry import message

JobOrder = message("streamflow.v1.JobOrder")
JobInput = message("streamflow.v1.JobInput")
JobStatus = message("streamflow.v1.JobStatus")
JobName = message("streamflow.v1.JobName")
JobListRequest = message("streamflow.v1.JobListRequest")
JobList = message("streamflow.v1.JobList")
JobResultsRequest = message("streamflow.v1.JobResultsRequest")
JobResult = message("streamflow.v1.JobResult")
JobControl = message("streamflow.v1.JobControl")
JobReplay = message("streamflow.v1.JobReplay")
