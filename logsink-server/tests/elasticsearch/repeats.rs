//! Each record once across a rollover, counted by the cluster.

mod data_stream {
    use std::time::Duration;

    use logsink_server::{index::IndexWriter, queue::Message};
    use reqwest::Method;
    use tokio::sync::watch;

    use super::super::{
        indices::{DAY_NS, SECOND_NS, batch, count, get, names, now_ns, request, roll_over},
        options, server_with,
    };

    /// A message as another sender makes it: without number.
    fn unnumbered(mut message: Message) -> Message {
        message.headers.sequence = None;
        message
    }

    #[tokio::test]
    async fn a_batch_that_is_written_again_after_a_rollover_is_there_once() {
        let options = options();
        let stream = options.data_stream.clone();
        let now = now_ns();
        // Young ones, late ones, and one whose sender has no numbers.
        let messages = [
            batch(1, 2_500, "shop", now, now),
            batch(2, 40, "shop", now - 9 * DAY_NS, now),
            unnumbered(batch(3, 30, "shop", now - 9 * DAY_NS, now)),
        ];
        let first = server_with(options.clone());
        assert_eq!(first.index.write(&messages).await.unwrap().stored, 2_570);
        roll_over(&stream).await;
        // The same process, as when a producer has delivered twice.
        assert_eq!(first.index.write(&messages).await.unwrap().stored, 2_570);
        assert_eq!(count(&stream).await, 2_570);
        roll_over(&stream).await;
        roll_over(&stream).await;
        // Another process, as after kill -9; with new records among the old, and an old batch twice in one write.
        let second = server_with(options);
        let more = [
            messages[0].clone(),
            messages[0].clone(),
            batch(4, 7, "shop", now, now),
            messages[2].clone(),
            messages[1].clone(),
        ];
        assert_eq!(second.index.write(&more).await.unwrap().stored, 5_077);
        assert_eq!(count(&stream).await, 2_577);
        assert_eq!(second.metrics.index_duplicates.get(), 5_070);
        let mut indices = names(&stream).await;
        indices.sort();
        assert_eq!(indices.len(), 4);
        // What is looked up in takes no writes any more, which a process killed since may have left under way.
        for (index, closed) in indices.iter().zip([true, true, true, false]) {
            let settings = get(&format!("/{index}/_settings?flat_settings=true")).await;
            assert_eq!(settings[index]["settings"]["index.blocks.write"] == "true", closed, "{index}");
        }
        assert_eq!(*second.buried.0.lock().unwrap(), []);
    }

    #[tokio::test]
    async fn young_messages_are_not_looked_up() {
        let options = options();
        let stream = options.data_stream.clone();
        let server = server_with(options);
        // Ten minutes on, when the rollover is long over.
        let later = now_ns() + 600 * SECOND_NS;
        server.index.write(&[batch(1, 10, "shop", later, later)]).await.unwrap();
        roll_over(&stream).await;
        // The write after which the rollover is seen.
        server.index.write(&[batch(2, 10, "shop", later, later)]).await.unwrap();
        let before = server.metrics.index_looked_up.get();
        // What has the id of its place is as young as its place; its records may be as old as they like.
        server
            .index
            .write(&[batch(3, 10, "shop", later, later), unnumbered(batch(4, 10, "shop", 1, later))])
            .await
            .unwrap();
        assert_eq!(server.metrics.index_looked_up.get(), before);
        server.index.write(&[batch(5, 10, "shop", later - DAY_NS, later)]).await.unwrap();
        assert_eq!(server.metrics.index_looked_up.get(), before + 10);
        assert_eq!(count(&stream).await, 50);
    }

    /// The second writer knows the index from before the rollover, and by its records' times it need not look anything up.
    #[tokio::test]
    async fn of_two_copies_that_a_rollover_between_two_writes_made_the_younger_goes() {
        let options = options();
        let stream = options.data_stream.clone();
        let (first, second) = (server_with(options.clone()), server_with(options));
        let later = now_ns() + 600 * SECOND_NS;
        second.index.write(&[batch(1, 5, "shop", later, later)]).await.unwrap();
        let messages = [batch(2, 100, "shop", later, later), batch(3, 100, "shop", later, later)];
        first.index.write(&messages[..1]).await.unwrap();
        roll_over(&stream).await;
        second.index.write(&messages).await.unwrap();
        assert_eq!(second.metrics.index_duplicates.get(), 100);
        assert_eq!(count(&stream).await, 205);
        let mut indices = names(&stream).await;
        indices.sort();
        assert_eq!((count(&indices[0]).await, count(&indices[1]).await), (105, 100), "the older copies stay");
    }

    /// Several processes write the same batches over and over while the data stream rolls over again and again.
    #[tokio::test]
    async fn rollovers_under_load_double_nothing() {
        let options = options();
        let stream = options.data_stream.clone();
        let now = now_ns();
        let messages: Vec<Message> = (0..12).map(|sequence| batch(sequence, 20, "shop", now, now)).collect();
        let (done, is_done) = watch::channel(false);
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let (options, messages, is_done) = (options.clone(), messages.clone(), is_done.clone());
                tokio::spawn(async move {
                    let server = server_with(options);
                    loop {
                        // Once more after the last rollover.
                        let is_last = *is_done.borrow();
                        for messages in messages.chunks(3) {
                            server.index.write(messages).await.unwrap();
                        }
                        if is_last {
                            return;
                        }
                    }
                })
            })
            .collect();
        let mut rollovers = 0;
        while rollovers < 4 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            // Before the first write there is nothing to roll over.
            let (status, _) = request(Method::POST, &format!("/{stream}/_rollover"), None).await;
            rollovers += usize::from(status == 200);
        }
        done.send_replace(true);
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(count(&stream).await, 240);
    }
}
