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
mod tests;
