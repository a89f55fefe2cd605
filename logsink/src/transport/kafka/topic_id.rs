//! Asks the brokers for a topic's id, which a topic that is made anew under the same name does not share. rdkafka does not show it.

use std::{
    ffi::{CString, c_int},
    ptr,
    time::Duration,
};

use rdkafka::{ClientContext, bindings as ffi, client::Client, types::RDKafkaRespErr};

use super::limit::Owned;

/// The id of `topic`, when the brokers tell it within `timeout`. Blocks.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Option<u128> {
    let name = CString::new(topic).ok()?;
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let client = client.native_ptr();
    // SAFETY: the client lives through the call; what is made here is given back by `Owned`, in the reverse order, so the event
    // goes before the queue that it came from. None of it is used by another thread.
    unsafe {
        let queue = Owned::new(ffi::rd_kafka_queue_new(client), ffi::rd_kafka_queue_destroy)?;
        let operation = ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options =
            Owned::new(ffi::rd_kafka_AdminOptions_new(client, operation), ffi::rd_kafka_AdminOptions_destroy)?;
        // A value out of range leaves the default in place, which the wait below bounds as well.
        ffi::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        let mut names = [name.as_ptr()];
        let topics = Owned::new(
            ffi::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            ffi::rd_kafka_TopicCollection_destroy,
        )?;
        ffi::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        let event = Owned::new(ffi::rd_kafka_queue_poll(queue.0, millis), ffi::rd_kafka_event_destroy)?;
        answer(event.0)
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn answer(event: *mut ffi::rd_kafka_event_t) -> Option<u128> {
    // SAFETY: the result, its topics and their ids belong to the event and live as long; the array has as many elements as its
    // count says; null where the event is of another kind or has none.
    unsafe {
        let result = ffi::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() || ffi::rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let mut count = 0;
        let topics = ffi::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return None;
        }
        let id = ffi::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return None;
        }
        let halves = [ffi::rd_kafka_Uuid_most_significant_bits(id), ffi::rd_kafka_Uuid_least_significant_bits(id)];
        let [high, low] = halves.map(|half| u128::from(half as u64));
        // A topic that is not there, or brokers without ids.
        Some(high << 64 | low).filter(|id| *id != 0)
    }
}
