# mypy: ignore-errors
import streamflow_pb2 as _streamflow_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobOrder(_message.Message):
    __slots__ = ("flow", "endpoint", "target_executor", "parameters", "key", "rate", "accept", "tenant")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    TARGET_EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    flow: str
    endpoint: str
    target_executor: str
    parameters: bytes
    key: str
    rate: float
    accept: str
    tenant: str
    def __init__(self, flow: _Optional[str] = ..., endpoint: _Optional[str] = ..., target_executor: _Optional[str] = ..., parameters: _Optional[bytes] = ..., key: _Optional[str] = ..., rate: _Optional[float] = ..., accept: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class JobInput(_message.Message):
    __slots__ = ("order", "content_type", "body")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    order: JobOrder
    content_type: str
    body: bytes
    def __init__(self, order: _Optional[_Union[JobOrder, _Mapping]] = ..., content_type: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("id", "flow", "endpoint", "state", "total", "done", "failed", "created", "gone", "tenant", "waits")
    ID_FIELD_NUMBER: _ClassVar[int]
    FLOW_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    id: str
    flow: str
    endpoint: str
    state: str
    total: int
    done: int
    failed: int
    created: float
    gone: int
    tenant: str
    waits: str
    def __init__(self, id: _Optional[str] = ..., flow: _Optional[str] = ..., endpoint: _Optional[str] = ..., state: _Optional[str] = ..., total: _Optional[int] = ..., done: _Optional[int] = ..., failed: _Optional[int] = ..., created: _Optional[float] = ..., gone: _Optional[int] = ..., tenant: _Optional[str] = ..., waits: _Optional[str] = ...) -> None: ...

class JobName(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class JobListRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class JobList(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobStatus]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobStatus, _Mapping]]] = ...) -> None: ...

class JobResultsRequest(_message.Message):
    __slots__ = ("id", "start", "only_stored")
    ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    ONLY_STORED_FIELD_NUMBER: _ClassVar[int]
    id: str
    start: int
    only_stored: bool
    def __init__(self, id: _Optional[str] = ..., start: _Optional[int] = ..., only_stored: bool = ...) -> None: ...

class JobResult(_message.Message):
    __slots__ = ("number", "cursor", "endpoint", "response")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    number: int
    cursor: int
    endpoint: str
    response: _streamflow_pb2.Response
    def __init__(self, number: _Optional[int] = ..., cursor: _Optional[int] = ..., endpoint: _Optional[str] = ..., response: _Optional[_Union[_streamflow_pb2.Response, _Mapping]] = ...) -> None: ...

class JobControl(_message.Message):
    __slots__ = ("id", "action")
    ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    action: str
    def __init__(self, id: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class JobReplay(_message.Message):
    __slots__ = ("id", "failed_only", "since", "until", "from_seq", "to_seq", "rate", "key", "tenant")
    ID_FIELD_NUMBER: _ClassVar[int]
    FAILED_ONLY_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    TO_SEQ_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    id: str
    failed_only: bool
    since: float
    until: float
    from_seq: int
    to_seq: int
    rate: float
    key: str
    tenant: str
    def __init__(self, id: _Optional[str] = ..., failed_only: bool = ..., since: _Optional[float] = ..., until: _Optional[float] = ..., from_seq: _Optional[int] = ..., to_seq: _Optional[int] = ..., rate: _Optional[float] = ..., key: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...
