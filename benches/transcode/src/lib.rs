//! The server's transcoder alone: the very files of `logsink-server/src/`, without what stands around them, parquet, librdkafka
//! and the like, which take minutes to build.

#![allow(dead_code, unused_imports, reason = "a bench needs a part of what the files offer")]
#![allow(unreachable_pub, reason = "what is public in the server need not be here")]

pub mod queue;

/// The server's own files.
#[path = "../../../logsink-server/src"]
mod server {
    pub mod otlp;
    pub(crate) mod text;

    /// The part of it that writes bodies.
    #[path = "index/elasticsearch"]
    pub(crate) mod elasticsearch {
        use std::sync::Arc;

        mod body;
        mod fields;
        mod json;
        mod layout;
        mod number;
        mod route;
        mod time;

        use crate::IndexError;

        /// Writes bodies one after another, as the drain does.
        #[derive(Default)]
        pub struct Transcoder(body::Buffers);

        impl Transcoder {
            /// Shows the body of these messages and returns the number of its documents.
            pub fn body(&mut self, messages: &[crate::queue::Message], show: impl FnOnce(&[u8])) -> usize {
                let (buffers, origin) = (std::mem::take(&mut self.0), body::origin("otlp_logs"));
                let routes = route::Routes {
                    pattern: Arc::new(route::Pattern::parse("logs-logsink-default").expect("this is a name")),
                    layout: layout::Layout::DataStream,
                    known: Arc::default(),
                    taken: Arc::default(),
                    is_full: false,
                    streams_max: 0,
                    now_ns: 0,
                    kept_days: None,
                };
                let (shape, part) = (body::Shape::default(), body::Part::first(usize::MAX));
                let body = body::Body::write_into(buffers, messages, origin, shape, &routes, part);
                show(&body.bytes);
                let documents = body.items.len();
                self.0 = body.into_buffers();
                documents
            }
        }
    }
}

use server::text;

/// Why a name cannot be used.
#[derive(Debug)]
pub enum IndexError {
    /// What is wrong.
    Failed(String),
}

pub use server::{elasticsearch::Transcoder, otlp};
