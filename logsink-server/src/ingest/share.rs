//! How the bytes under way are shared between services: nobody may hold more than is free.
//!
//! That is the dynamic threshold of shared switch buffers (Choudhury and Hahne, 1998). A single service may hold half of the
//! bound; N greedy ones, once what they had under way before has ended, hold 1/(N+1) of it each, and 1/(N+1) stays free: who
//! comes new finds room at once, and nobody needs to know how many there are. A service that holds nothing is let in in any case, so that a large request is never refused for ever.

/// Whether a service that holds `own` bytes may have `more`, where all services together hold `all` of `max`.
pub(super) fn may_hold(own: u64, more: u64, all: u64, max: u64) -> bool {
    own == 0 || own.saturating_add(more) <= max.saturating_sub(all.saturating_add(more))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_service_has_half_and_a_second_one_finds_room() {
        assert!(may_hold(40, 10, 40, 100));
        assert!(!may_hold(41, 10, 41, 100), "more than is left");
        assert!(may_hold(0, 10, 50, 100));
        assert!(may_hold(0, 200, 100, 100), "its first request, whatever there is");
    }

    proptest! {
        /// Services that always want more, each finishing its requests in its own time.
        #[test]
        fn greedy_services_leave_room_for_one_more(
            services in 1usize..8,
            choices in prop::collection::vec((0usize..8, 20u64..200, any::<bool>()), 50..400),
        ) {
            let max = 10_000u64;
            // By service: what it holds, and its requests.
            let mut held = vec![(0u64, Vec::new()); services];
            let mut all = 0;
            let steps = choices.into_iter().map(|(service, bytes, ends)| (service % services, bytes, ends));
            // At the end, what was under way before the last one came ends, one by one.
            let settling = (0..600 * services).map(|step| (step % services, 200, true));
            for (service, bytes, ends) in steps.chain(settling) {
                let (own, requests) = &mut held[service];
                if ends && !requests.is_empty() {
                    let ended: u64 = requests.remove(0);
                    (*own, all) = (*own - ended, all - ended);
                }
                // Takes what it can get.
                while may_hold(*own, bytes, all, max) {
                    requests.push(bytes);
                    (*own, all) = (*own + bytes, all + bytes);
                }
                prop_assert!(all < max && *own <= max / 2);
            }
            let free = max - all;
            let share = max / (services as u64 + 1);
            prop_assert!(free + 200 * services as u64 >= share, "{} free of a share of {}", free, share);
        }
    }
}
