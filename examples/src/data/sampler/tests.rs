use super::*;
use crate::data::random::{Purpose, stream};

fn plan(meanings: &[usize], batch_size: usize, share: f64, epoch: u64) -> Vec<Vec<usize>> {
    plan_batches(
        meanings,
        batch_size,
        share,
        &mut stream(7, epoch, 0, Purpose::Order),
    )
}

/// Pairs of `batch` that share their meaning with another of it.
fn sharing(meanings: &[usize], batch: &[usize]) -> usize {
    batch
        .iter()
        .filter(|&&a| batch.iter().any(|&b| a != b && meanings[a] == meanings[b]))
        .count()
}

fn distinct(examples: impl IntoIterator<Item = usize>) -> usize {
    examples.into_iter().collect::<HashSet<_>>().len()
}

/// 300 examples: 150 alone in their meaning, 60 in twos, 90 in threes.
fn mixed() -> Vec<usize> {
    let twos = (0..60).map(|e| 1_000 + e / 2);
    let threes = (0..90).map(|e| 2_000 + e / 3);
    (0..150).chain(twos).chain(threes).collect()
}

#[test]
fn an_epoch_shows_every_example_once_in_an_order_of_its_own() {
    let meanings: Vec<usize> = (0..103).collect();
    let plans = [0, 1].map(|epoch| plan(&meanings, 10, 0.0, epoch));
    for plan in &plans {
        assert_eq!(plan.len(), 10);
        assert!(plan.iter().all(|batch| batch.len() == 10));
        assert_eq!(distinct(plan.iter().flatten().copied()), 100);
    }
    assert_ne!(plans[0], plans[1]);
    assert_eq!(plans[0], plan(&meanings, 10, 0.0, 0));
}

/// 230 examples in shards of 30 and one of 20, in buffers of 70 and batches of 10.
fn buffered(meanings: &[usize], share: f64, epoch: u64) -> Vec<Vec<usize>> {
    let shards: Vec<usize> = (0..230).map(|e| e / 30).collect();
    let mut rng = stream(7, epoch, 0, Purpose::Order);
    plan_buffered(meanings, &shards, 75, 10, share, &mut rng)
}

#[test]
fn buffered_epochs_show_every_example_once_and_are_functions_of_seed_and_epoch() {
    let meanings: Vec<usize> = (0..230).collect();
    for epoch in 0..5 {
        let plan = buffered(&meanings, 0.0, epoch);
        assert_eq!(plan.len(), 23);
        assert!(plan.iter().all(|batch| batch.len() == 10));
        assert_eq!(distinct(plan.iter().flatten().copied()), 230);
        assert_eq!(plan, buffered(&meanings, 0.0, epoch));
        assert_ne!(plan, buffered(&meanings, 0.0, epoch + 1));
    }
}

#[test]
fn no_example_is_read_more_than_a_buffer_away_from_its_place_in_its_shard() {
    let meanings: Vec<usize> = (0..230).collect();
    let mut starts = HashSet::new();
    for epoch in 0..20 {
        let order: Vec<usize> = buffered(&meanings, 0.0, epoch).concat();
        // Every buffer holds pieces of shards in the order of the file, and few of them: seven
        // shards of 30, one of 20 and the one in which the epoch begins and ends.
        let mut pieces = 0;
        for part in order.chunks(70) {
            let mut part = part.to_vec();
            assert!(!part.is_sorted(), "a buffer is shuffled");
            part.sort_unstable();
            let next = |a: &usize, b: &usize| a + 1 == *b && a / 30 == b / 30;
            pieces += part.chunk_by(next).count();
        }
        // Each of the three boundaries between buffers cuts one shard at most.
        assert!((8..=9 + 3).contains(&pieces), "{pieces}");
        starts.insert(order.iter().take(70).map(|e| e / 30).collect::<Vec<_>>());
    }
    assert!(starts.len() > 15, "the shards come in other orders");
}

#[test]
fn buffers_begin_elsewhere_in_each_epoch() {
    let meanings: Vec<usize> = (0..40).collect();
    let first = |epoch| {
        let mut rng = stream(7, epoch, 0, Purpose::Order);
        let plan = plan_buffered(&meanings, &[0; 40], 8, 8, 0.0, &mut rng);
        plan[0].iter().min().copied().unwrap()
    };
    let places: HashSet<usize> = (0..20).map(|epoch| first(epoch) % 8).collect();
    assert!(places.len() > 4, "{places:?}");
}

#[test]
fn a_buffer_that_holds_all_is_none() {
    let meanings = mixed();
    let shards: Vec<usize> = (0..300).map(|e| e / 7).collect();
    for buffer in [300, 301, usize::MAX] {
        let mut rng = stream(7, 3, 0, Purpose::Order);
        let buffered = plan_buffered(&meanings, &shards, buffer, 24, 0.25, &mut rng);
        assert_eq!(buffered, plan(&meanings, 24, 0.25, 3));
    }
}

#[test]
fn buffers_keep_equal_meanings_apart_and_together() {
    let meanings: Vec<usize> = (0..230).map(|e| e / 2).collect();
    for epoch in 0..5 {
        for (share, expected) in [(0.0, 0), (0.4, 4)] {
            let plan = buffered(&meanings, share, epoch);
            assert!(
                plan.iter()
                    .all(|batch| sharing(&meanings, batch) == expected)
            );
        }
    }
}

#[test]
fn a_buffer_smaller_than_a_batch_is_a_batch() {
    let meanings: Vec<usize> = (0..40).collect();
    let mut rng = stream(7, 0, 0, Purpose::Order);
    let plan = plan_buffered(&meanings, &[0; 40], 3, 8, 0.0, &mut rng);
    assert_eq!(distinct(plan.concat()), 40);
}

#[test]
fn no_two_pairs_of_a_batch_have_the_same_meaning_by_default() {
    let ten_meanings: Vec<usize> = (0..200).map(|e| e % 10).collect();
    let all_twos: Vec<usize> = (0..200).map(|e| e / 2).collect();
    for (meanings, batch_size) in [
        (mixed(), 32),
        (mixed(), 100),
        (ten_meanings, 10),
        (all_twos, 100),
    ] {
        for epoch in 0..5 {
            let plan = plan(&meanings, batch_size, 0.0, epoch);
            assert!(plan.iter().all(|batch| sharing(&meanings, batch) == 0));
            assert_eq!(
                distinct(plan.iter().flatten().copied()),
                plan.len() * batch_size
            );
        }
    }
}

#[test]
fn every_batch_has_the_configured_share_of_equal_meanings() {
    let meanings = mixed();
    for (share, expected) in [
        (0.01, 0),
        (0.05, 2),
        (0.1, 2),
        (0.25, 6),
        (0.125, 3),
        (0.3, 7),
        (0.46, 11),
        (0.5, 12),
        (1.0, 24),
    ] {
        for epoch in 0..5 {
            let plan = plan(&meanings, 24, share, epoch);
            assert_eq!(plan.len(), 12);
            for batch in &plan {
                assert_eq!(sharing(&meanings, batch), expected, "share {share}");
                assert_eq!(distinct(batch.iter().copied()), 24);
            }
            // 150 of the 300 examples can share: up to a share of 0.3 none is needed twice.
            let appear = distinct(plan.iter().flatten().copied());
            assert!(share > 0.3 || appear == 12 * 24, "share {share}: {appear}");
        }
    }
}

#[test]
fn an_odd_number_without_threes_is_one_less() {
    let meanings: Vec<usize> = (0..100).map(|e| e / 2).collect();
    assert!(
        plan(&meanings, 10, 0.5, 0)
            .iter()
            .all(|batch| sharing(&meanings, batch) == 4)
    );
}

#[test]
fn unknown_meanings_are_shared_at_no_setting() {
    let meanings: Vec<usize> = (0..40).collect();
    let plan = plan(&meanings, 8, 0.5, 0);
    assert_eq!(distinct(plan.iter().flatten().copied()), 40);
}

#[test]
fn batches_are_full_where_the_share_cannot_be_reached() {
    let one_meaning = vec![0; 50];
    let plans = [plan(&one_meaning, 8, 0.0, 0), plan(&one_meaning, 8, 0.5, 0)];
    for plan in plans {
        assert!(
            plan.iter()
                .all(|batch| distinct(batch.iter().copied()) == 8)
        );
        assert_eq!(plan.len(), 6);
    }
    assert!(plan(&one_meaning, 51, 0.0, 0).is_empty());
    assert_eq!(plan(&[0, 1], 1, 1.0, 0).len(), 2);
}
