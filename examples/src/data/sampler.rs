//! Which pairs meet in a batch.
//!
//! Two pairs of equal meaning in one batch are false negatives of each other: a contrastive loss
//! pushes apart what belongs together. How many there are is therefore not left to chance.

use std::collections::{HashMap, HashSet};

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// Splits examples into full batches for one epoch; what does not fill a batch is left out.
///
/// `meanings[e]` is equal for two examples exactly if they have the same meaning. Each batch is a
/// list of indices into it, of which a share `equal_meaning` (rounded to whole pairs) shares its
/// meaning with another pair of that batch, while no other two do:
///
/// - With 0, no two pairs of a batch have the same meaning.
/// - One pair cannot share alone, so that a share of less than one pair is none, and of less than
///   two pairs is two. An odd number needs a meaning that three examples have, else it is one less.
/// - Every example appears at most once in the epoch, unless the examples of equal meaning are too
///   few to give every batch its share: then they appear in several batches, and others in none.
///   They never appear twice in the same batch.
/// - Where the data do not allow it (fewer meanings than places in a batch), batches come as near
///   as they can.
pub fn plan_batches(
    meanings: &[usize],
    batch_size: usize,
    equal_meaning: f64,
    rng: &mut impl Rng,
) -> Vec<Vec<usize>> {
    let batches = meanings.len() / batch_size;
    if batches == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..meanings.len()).collect();
    order.shuffle(rng);

    let mut plan = share_meanings(
        meanings,
        &order,
        batches,
        sharing_pairs(batch_size, equal_meaning),
    );
    let sharing = plan[0].len();
    let taken: HashSet<usize> = plan.iter().flatten().copied().collect();
    let free = order
        .into_iter()
        .filter(|example| !taken.contains(example))
        .collect();
    let filling = spread(meanings, free, batches, batches * (batch_size - sharing));
    for (place, example) in filling.into_iter().enumerate() {
        plan[place % batches].push(example);
    }
    separate(meanings, &mut plan, sharing, rng);

    for batch in &mut plan {
        batch.shuffle(rng);
    }
    plan.shuffle(rng);
    plan
}

/// As [`plan_batches`], of examples that are read nearly one after the other.
///
/// `shards[e]` is equal for neighbours exactly if they lie in the same shard. The shards come in an
/// order of the epoch's own, which begins anywhere in one of them; of every `buffer` examples of
/// this order, rounded down to whole batches but to no fewer than one, batches are made as of a set
/// of their own. So an example stands less than that many places before or behind its place in that
/// order. A buffer that holds all examples gives the plan of [`plan_batches`].
pub fn plan_buffered(
    meanings: &[usize],
    shards: &[usize],
    buffer: usize,
    batch_size: usize,
    equal_meaning: f64,
    rng: &mut impl Rng,
) -> Vec<Vec<usize>> {
    if buffer >= meanings.len() {
        return plan_batches(meanings, batch_size, equal_meaning, rng);
    }
    let order = in_shards(shards, rng);
    let buffer = (buffer / batch_size).max(1) * batch_size;
    let mut plan = Vec::new();
    for part in order.chunks(buffer) {
        let own: Vec<usize> = part.iter().map(|&example| meanings[example]).collect();
        let batches = plan_batches(&own, batch_size, equal_meaning, rng).into_iter();
        plan.extend(batches.map(|batch| batch.iter().map(|&place| part[place]).collect()));
    }
    plan
}

/// All examples, shard by shard.
fn in_shards(shards: &[usize], rng: &mut impl Rng) -> Vec<usize> {
    let all: Vec<usize> = (0..shards.len()).collect();
    let mut each: Vec<_> = all.chunk_by(|a, b| shards[*a] == shards[*b]).collect();
    each.shuffle(rng);
    let mut order = each.concat();
    // Otherwise those around the same boundary would never meet.
    let start = rng.random_range(0..order.len());
    order.rotate_left(start);
    order
}

/// How many pairs of a batch are to share their meaning.
fn sharing_pairs(batch_size: usize, share: f64) -> usize {
    let exact = share * batch_size as f64;
    let pairs = (exact.round() as usize).min(batch_size);
    match pairs {
        1 if exact < 1.0 => 0,
        1 => 2.min(batch_size),
        _ => pairs,
    }
}

/// Gives each batch `pairs` examples, or as many as there are, in sets of two (and one of three
/// where `pairs` is odd) that have the same meaning. All batches get the same number.
fn share_meanings(
    meanings: &[usize],
    order: &[usize],
    batches: usize,
    pairs: usize,
) -> Vec<Vec<usize>> {
    if pairs < 2 {
        return vec![Vec::new(); batches];
    }
    let groups: Vec<Vec<usize>> = group(meanings, order)
        .into_iter()
        .filter(|group| group.len() > 1)
        .collect();
    let large = groups.iter().filter(|group| group.len() > 2).count();
    let mut threes_left = if pairs % 2 == 1 {
        batches.min(large.div_ceil(2))
    } else {
        0
    };

    let (mut twos, mut threes) = (Vec::new(), Vec::new());
    for group in &groups {
        let mut rest = group.as_slice();
        if threes_left > 0 && rest.len() > 2 {
            let (three, others) = rest.split_at(3);
            threes.push(three);
            rest = others;
            threes_left -= 1;
        }
        twos.extend(rest.chunks_exact(2));
    }
    let twos_each = ((pairs - if threes.is_empty() { 0 } else { 3 }) / 2).min(twos.len());
    (0..batches)
        .map(|batch| {
            let three = threes
                .iter()
                .cycle()
                .skip(batch % threes.len().max(1))
                .take(1);
            let twos = (0..twos_each).map(|set| &twos[(batch * twos_each + set) % twos.len()]);
            three
                .chain(twos)
                .flat_map(|set| set.iter().copied())
                .collect()
        })
        .collect()
}

/// `order` grouped by meaning, groups and members in the order of their first appearance.
fn group(meanings: &[usize], order: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut position = HashMap::new();
    for &example in order {
        let group = *position.entry(meanings[example]).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(example);
    }
    groups
}

/// `count` of the examples `free`, so arranged that dealing them out to `batches` in turn parts
/// those of equal meaning.
///
/// Members of a group are adjacent, and a group with more members than there are batches
/// loses the surplus first.
fn spread(meanings: &[usize], free: Vec<usize>, batches: usize, count: usize) -> Vec<usize> {
    let mut members: HashMap<usize, usize> = HashMap::new();
    let (mut kept, surplus): (Vec<usize>, Vec<usize>) = free.into_iter().partition(|&example| {
        let members = members.entry(meanings[example]).or_default();
        *members += 1;
        *members <= batches
    });
    kept.extend(surplus);
    kept.truncate(count);
    group(meanings, &kept).into_iter().flatten().collect()
}

/// Exchanges examples between batches until, where that is possible, none beyond the first
/// `sharing` of its batch has the same meaning as another of that batch.
fn separate(meanings: &[usize], plan: &mut [Vec<usize>], sharing: usize, rng: &mut impl Rng) {
    let mut counts: Vec<HashMap<usize, usize>> = plan
        .iter()
        .map(|batch| {
            let mut counts = HashMap::new();
            batch
                .iter()
                .for_each(|&example| *counts.entry(meanings[example]).or_insert(0) += 1);
            counts
        })
        .collect();
    let batches = plan.len();
    let places = plan[0].len() - sharing;
    for batch in 0..batches {
        for place in sharing..sharing + places {
            let meaning = meanings[plan[batch][place]];
            if counts[batch][&meaning] == 1 {
                continue;
            }
            let start = rng.random_range(0..batches * places);
            let mut candidates = (0..batches * places).map(|step| {
                let position = (start + step) % (batches * places);
                (position / places, sharing + position % places)
            });
            let exchange = candidates.find(|&(other, position)| {
                let theirs = meanings[plan[other][position]];
                !counts[batch].contains_key(&theirs) && !counts[other].contains_key(&meaning)
            });
            if let Some((other, position)) = exchange {
                let theirs = meanings[plan[other][position]];
                for (batch, gone, come) in [(batch, meaning, theirs), (other, theirs, meaning)] {
                    let left = counts[batch].get_mut(&gone).expect("counted");
                    *left -= 1;
                    if *left == 0 {
                        counts[batch].remove(&gone);
                    }
                    *counts[batch].entry(come).or_insert(0) += 1;
                }
                let ours = plan[batch][place];
                plan[batch][place] = std::mem::replace(&mut plan[other][position], ours);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
