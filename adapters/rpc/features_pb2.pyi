from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_PRESENT: _ClassVar[State]
    STATE_MISSING: _ClassVar[State]
    STATE_STALE: _ClassVar[State]
    STATE_DEFAULT: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_PRESENT: State
STATE_MISSING: State
STATE_STALE: State
STATE_DEFAULT: State

class Keys(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class FeaturesRequest(_message.Message):
    __slots__ = ("feature_service", "features", "entities", "at_ms")
    class EntitiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Keys
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Keys, _Mapping]] = ...) -> None: ...
    FEATURE_SERVICE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    feature_service: str
    features: _containers.RepeatedScalarFieldContainer[str]
    entities: _containers.MessageMap[str, Keys]
    at_ms: int
    def __init__(self, feature_service: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., entities: _Optional[_Mapping[str, Keys]] = ..., at_ms: _Optional[int] = ...) -> None: ...

class Doubles(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Integers(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class Flags(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, values: _Optional[_Iterable[bool]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class TextLists(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Texts]
    def __init__(self, values: _Optional[_Iterable[_Union[Texts, _Mapping]]] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "doubles", "integers", "flags", "texts", "text_lists", "nulls")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TEXT_LISTS_FIELD_NUMBER: _ClassVar[int]
    NULLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    doubles: Doubles
    integers: Integers
    flags: Flags
    texts: Texts
    text_lists: TextLists
    nulls: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., doubles: _Optional[_Union[Doubles, _Mapping]] = ..., integers: _Optional[_Union[Integers, _Mapping]] = ..., flags: _Optional[_Union[Flags, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., text_lists: _Optional[_Union[TextLists, _Mapping]] = ..., nulls: _Optional[_Iterable[int]] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("name", "states", "ages_ms", "reads_ms_ago", "columns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    AGES_MS_FIELD_NUMBER: _ClassVar[int]
    READS_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    name: str
    states: _containers.RepeatedScalarFieldContainer[State]
    ages_ms: _containers.RepeatedScalarFieldContainer[int]
    reads_ms_ago: _containers.RepeatedScalarFieldContainer[int]
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, name: _Optional[str] = ..., states: _Optional[_Iterable[_Union[State, str]]] = ..., ages_ms: _Optional[_Iterable[int]] = ..., reads_ms_ago: _Optional[_Iterable[int]] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class FeaturesResponse(_message.Message):
    __slots__ = ("request_id", "feature_set", "feature_service", "at_ms", "rows", "stale", "degraded", "views")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SERVICE_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    feature_set: str
    feature_service: str
    at_ms: int
    rows: int
    stale: bool
    degraded: _containers.RepeatedScalarFieldContainer[str]
    views: _containers.RepeatedCompositeFieldContainer[View]
    def __init__(self, request_id: _Optional[str] = ..., feature_set: _Optional[str] = ..., feature_service: _Optional[str] = ..., at_ms: _Optional[int] = ..., rows: _Optional[int] = ..., stale: _Optional[bool] = ..., degraded: _Optional[_Iterable[str]] = ..., views: _Optional[_Iterable[_Union[View, _Mapping]]] = ...) -> None: ...

class ListFeatureServicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FeatureService(_message.Message):
    __slots__ = ("name", "version", "newest", "features", "join_keys", "models")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    JOIN_KEYS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    newest: bool
    features: _containers.RepeatedScalarFieldContainer[str]
    join_keys: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., newest: _Optional[bool] = ..., features: _Optional[_Iterable[str]] = ..., join_keys: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[str]] = ...) -> None: ...

class ListFeatureServicesResponse(_message.Message):
    __slots__ = ("feature_set", "services")
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    feature_set: str
    services: _containers.RepeatedCompositeFieldContainer[FeatureService]
    def __init__(self, feature_set: _Optional[str] = ..., services: _Optional[_Iterable[_Union[FeatureService, _Mapping]]] = ...) -> None: ...
