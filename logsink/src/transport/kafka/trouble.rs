//! librdkafka's error codes, told apart by who can do something about them.
//!
//! Most failures reach a batch as "timed out": the client has tried for as long as it may. What was in the way it says
//! beside that, by its error callback; the last such word is what a batch's error names.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use crate::{metrics::KafkaTrouble, transport::SendError};

/// What this code means.
pub(super) fn of(code: Code) -> KafkaTrouble {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::BrokerNotAvailable
        | Code::NetworkException
        | Code::UnknownBroker => KafkaTrouble::Unreachable,
        Code::NotLeaderForPartition
        | Code::LeaderNotAvailable
        | Code::ReplicaNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::PreferredLeaderNotAvailable
        | Code::KafkaStorageError => KafkaTrouble::LeaderChange,
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend | Code::ISRInsufficient => KafkaTrouble::Replicas,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => KafkaTrouble::TopicMissing,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL => KafkaTrouble::Authentication,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::GroupAuthorizationFailed => KafkaTrouble::Authorization,
        _ => KafkaTrouble::Other,
    }
}

/// The last word of the client about its connections.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) trouble: KafkaTrouble,
    pub(super) text: String,
}

impl Word {
    pub(super) fn new(code: Code, reason: &str) -> Self {
        Self { trouble: of(code), text: reason.to_owned() }
    }

    /// Whether it says more than the word before it: that all brokers are down follows from each of them being so.
    pub(super) fn replaces(&self, before: Option<&Self>, code: Code) -> bool {
        before.is_none_or(|before| code != Code::AllBrokersDown || before.trouble == KafkaTrouble::Other)
    }
}

/// Why a batch was not taken: worth trying again is all that a broker's restart, a leader's move, a network or an operator
/// that is at it can cause.
pub(super) fn judge(error: &KafkaError, topic: &str, word: Option<&Word>) -> (KafkaTrouble, SendError) {
    let code = error.rdkafka_error_code();
    let timed_out = matches!(code, Some(Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut));
    let (trouble, cause) = match (code, word) {
        (Some(_), Some(word)) if timed_out => (word.trouble, word.text.clone()),
        (Some(code), _) => (of(code), error.to_string()),
        (None, _) => (KafkaTrouble::Other, error.to_string()),
    };
    let message = match trouble {
        KafkaTrouble::Unreachable => format!("no broker can be reached: {cause}"),
        KafkaTrouble::LeaderChange => format!("the topic `{topic}` is moving to another broker: {cause}"),
        KafkaTrouble::Replicas => format!("the topic `{topic}` has too few replicas in sync: {cause}"),
        KafkaTrouble::TopicMissing => {
            format!(
                "there is no topic `{topic}`: create it, or allow the brokers to (`auto.create.topics.enable`): {cause}"
            )
        }
        KafkaTrouble::Authentication => {
            format!("the brokers do not accept us: check `[sasl]` and `[tls]`: {cause}")
        }
        KafkaTrouble::Authorization => {
            format!("we may not write to the topic `{topic}`: grant WRITE and DESCRIBE on it: {cause}")
        }
        KafkaTrouble::Other => cause,
    };
    let error = match code {
        // Of the broker or, before anything is sent, of librdkafka's own limit.
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => SendError::TooLarge { message },
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::InvalidRequiredAcks
            | Code::UnsupportedForMessageFormat,
        ) => SendError::Permanent { message },
        _ => SendError::Retryable { message, after: None },
    };
    (trouble, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_who_can_act() {
        let produced = |code| judge(&KafkaError::MessageProduction(code), "logs", None);
        assert!(matches!(produced(Code::MessageSizeTooLarge).1, SendError::TooLarge { .. }));
        assert!(matches!(produced(Code::TopicAuthorizationFailed).1, SendError::Permanent { .. }));
        for code in [
            Code::MessageTimedOut,
            Code::QueueFull,
            Code::NotEnoughReplicas,
            Code::UnknownTopicOrPartition,
            Code::Fatal,
        ] {
            assert!(matches!(produced(code).1, SendError::Retryable { .. }), "{code:?}");
        }
        assert!(matches!(judge(&KafkaError::Canceled, "logs", None).1, SendError::Retryable { .. }));
        for (code, trouble, words) in [
            (Code::AllBrokersDown, KafkaTrouble::Unreachable, "no broker can be reached"),
            (Code::NotLeaderForPartition, KafkaTrouble::LeaderChange, "the topic `logs` is moving to another broker"),
            (Code::NotEnoughReplicas, KafkaTrouble::Replicas, "too few replicas"),
            (Code::UnknownTopic, KafkaTrouble::TopicMissing, "there is no topic `logs`: create it"),
            (Code::SaslAuthenticationFailed, KafkaTrouble::Authentication, "check `[sasl]` and `[tls]`"),
            (Code::TopicAuthorizationFailed, KafkaTrouble::Authorization, "may not write to the topic `logs`"),
            (Code::InvalidRecord, KafkaTrouble::Other, ""),
        ] {
            let (told, error) = produced(code);
            assert_eq!(told, trouble);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_timeout_names_what_was_in_the_way() {
        let timeout = KafkaError::MessageProduction(Code::MessageTimedOut);
        let word = Word::new(Code::Authentication, "SASL authentication error: bad password");
        let (trouble, error) = judge(&timeout, "logs", Some(&word));
        assert_eq!(trouble, KafkaTrouble::Authentication);
        assert!(error.to_string().contains("bad password"), "{error}");
        assert_eq!(judge(&timeout, "logs", None).0, KafkaTrouble::Other);
        // That nobody is left says less than why.
        let down = Word::new(Code::AllBrokersDown, "1/1 brokers are down");
        assert!(!down.replaces(Some(&word), Code::AllBrokersDown));
        assert!(down.replaces(None, Code::AllBrokersDown));
        assert!(word.replaces(Some(&down), Code::Authentication));
    }
}
