//! Asks the brokers for the largest batch that the topic takes (`max.message.bytes`).
//!
//! By the producer's own handle: rdkafka's `AdminClient` would be a second client with threads and connections of its own,
//! for one question.

use std::{
    ffi::{CStr, CString, c_int},
    ptr,
    time::Duration,
};

use rdkafka::{bindings as ffi, types::RDKafkaRespErr};

/// The topic's setting.
const SETTING: &CStr = c"max.message.bytes";

/// The limit of `topic`, when the brokers tell it within `timeout`; they need not know the topic, nor let us ask. Blocks.
///
/// # Safety
/// `client` is a librdkafka handle that lives through the call.
pub(super) unsafe fn of_topic(client: *mut ffi::rd_kafka_t, topic: &str, timeout: Duration) -> Option<usize> {
    let name = CString::new(topic).ok()?;
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the caller's handle lives; what is made here is given back by `Owned`, in the reverse order, so the event goes
    // before the queue that it came from. None of it is used by another thread.
    unsafe {
        let queue = Owned::new(ffi::rd_kafka_queue_new(client), ffi::rd_kafka_queue_destroy)?;
        let operation = ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
        let options =
            Owned::new(ffi::rd_kafka_AdminOptions_new(client, operation), ffi::rd_kafka_AdminOptions_destroy)?;
        // A value out of range leaves the default in place, which the wait below bounds as well.
        ffi::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        let kind = ffi::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let resource =
            Owned::new(ffi::rd_kafka_ConfigResource_new(kind, name.as_ptr()), ffi::rd_kafka_ConfigResource_destroy)?;
        let mut resources = [resource.0];
        ffi::rd_kafka_DescribeConfigs(client, resources.as_mut_ptr(), 1, options.0, queue.0);
        let event = Owned::new(ffi::rd_kafka_queue_poll(queue.0, millis), ffi::rd_kafka_event_destroy)?;
        answer(event.0)
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn answer(event: *mut ffi::rd_kafka_event_t) -> Option<usize> {
    // SAFETY: the result, its resources and their entries belong to the event and live as long; each array has as many
    // elements as its count says; null where the event is of another kind or has none.
    unsafe {
        let result = ffi::rd_kafka_event_DescribeConfigs_result(event);
        if result.is_null() || ffi::rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let mut count = 0;
        let resources = ffi::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        if resources.is_null() || count == 0 {
            return None;
        }
        let resource = *resources;
        if ffi::rd_kafka_ConfigResource_error(resource) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let entries = ffi::rd_kafka_ConfigResource_configs(resource, &mut count);
        if entries.is_null() {
            return None;
        }
        for index in 0..count {
            let entry = *entries.add(index);
            let (name, value) = (ffi::rd_kafka_ConfigEntry_name(entry), ffi::rd_kafka_ConfigEntry_value(entry));
            if !name.is_null() && !value.is_null() && CStr::from_ptr(name) == SETTING {
                return CStr::from_ptr(value).to_str().ok()?.parse().ok();
            }
        }
        None
    }
}

/// What librdkafka made, and how it is given back.
pub(super) struct Owned<T>(pub(super) *mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    pub(super) fn new(made: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!made.is_null()).then_some(Self(made, destroy))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the function that belongs to this one, not null, and given back once.
        unsafe { (self.1)(self.0) }
    }
}
