//! Draws a chest: what is at each point, from the front or from the side.
//!
//! Coordinates go from −1 to 1, x to the right of the image and y down. Brightness goes from 0,
//! black, to 1.

use image::{GrayImage, Luma};
use rand::{Rng, RngExt};

use super::{Finding, Patient};

/// From where the image is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Two lungs, the heart between them.
    Frontal,
    /// Both lungs behind one another, the spine at the right.
    Lateral,
}

/// How a finding looks, should it be there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Form {
    /// At the left of the image.
    pub is_left: bool,
    /// Large, or small.
    pub is_large: bool,
    /// Where in its lung, in the coordinates of the lung's ellipse.
    place: [f32; 2],
}

impl Form {
    pub fn random(rng: &mut impl Rng) -> Self {
        Self {
            is_left: rng.random(),
            is_large: rng.random(),
            place: [rng.random_range(-0.45..0.45), rng.random_range(-0.65..0.05)],
        }
    }

    /// One of two values, for small and large ones.
    fn of(&self, [small, large]: [f32; 2]) -> f32 {
        if self.is_large { large } else { small }
    }

    /// −1 at the left of the image, 1 at the right.
    fn sign(&self) -> f32 {
        if self.is_left { -1.0 } else { 1.0 }
    }
}

/// What differs from patient to patient, findings aside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Anatomy {
    width: f32,
    height: f32,
    ribs: f32,
    phase: f32,
    heart: f32,
}

impl Anatomy {
    pub fn random(rng: &mut impl Rng) -> Self {
        Self {
            width: rng.random_range(0.92..1.08),
            height: rng.random_range(0.92..1.08),
            ribs: rng.random_range(12.0..16.0),
            phase: rng.random_range(0.0..6.0),
            heart: rng.random_range(0.9..1.1),
        }
    }
}

/// An image of a patient, taken with some exposure, from some place, with noise.
pub(super) fn image(
    patient: &Patient,
    view: View,
    size: u32,
    noise: f64,
    rng: &mut impl Rng,
) -> GrayImage {
    let contrast = rng.random_range(0.8..1.1);
    let offset = rng.random_range(-0.06..0.06);
    let scale = rng.random_range(0.95..1.08);
    let shift: [f32; 2] = std::array::from_fn(|_| rng.random_range(-0.06..0.06));
    let at = |pixel: u32, shift: f32| {
        let place = (2.0 * pixel as f32 + 1.0) / size as f32 - 1.0;
        (place - shift) * scale
    };
    GrayImage::from_fn(size, size, |x, y| {
        let value = brightness(patient, view, at(x, shift[0]), at(y, shift[1]));
        // Four uniform numbers add up to almost a normal one; their deviation is √(4/12).
        let sum: f32 = (0..4).map(|_| rng.random_range(-0.5..0.5f32)).sum();
        let value = contrast * value + offset + sum * 3f32.sqrt() * noise as f32;
        Luma([(255.0 * value.clamp(0.0, 1.0)).round() as u8])
    })
}

/// 1 inside, 0 outside, with a soft edge: `distance` is 1 on it.
fn inside(distance: f32, softness: f32) -> f32 {
    1.0 / (1.0 + ((distance - 1.0) / softness).exp())
}

fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// A lung as it is seen: its centre and its radii.
struct Lung {
    centre: [f32; 2],
    radii: [f32; 2],
    /// −1 at the left of the image, 1 at the right, 0 for both behind one another.
    sign: f32,
}

impl Lung {
    /// A point in the coordinates of the ellipse.
    fn local(&self, x: f32, y: f32) -> [f32; 2] {
        [
            (x - self.centre[0]) / self.radii[0],
            (y - self.centre[1]) / self.radii[1],
        ]
    }

    fn has(&self, form: Form) -> bool {
        self.sign == 0.0 || self.sign == form.sign()
    }
}

fn lungs(view: View, anatomy: Anatomy) -> Vec<Lung> {
    let Anatomy { width, height, .. } = anatomy;
    match view {
        View::Frontal => [-1.0, 1.0]
            .map(|sign| Lung {
                centre: [0.43 * sign * width, -0.05],
                radii: [0.33 * width, 0.66 * height],
                sign,
            })
            .into(),
        View::Lateral => vec![Lung {
            centre: [-0.05, -0.03],
            radii: [0.6 * width, 0.7 * height],
            sign: 0.0,
        }],
    }
}

/// How bright the patient is at a point, without exposure and noise.
pub(super) fn brightness(patient: &Patient, view: View, x: f32, y: f32) -> f32 {
    let anatomy = patient.anatomy;
    let form = |finding| patient.form(finding);
    let body = inside((x / 0.95).powi(4) + (y / 1.3).powi(4), 0.05);
    let mut value = mix(0.03, 0.62, body);
    for lung in lungs(view, anatomy) {
        let [u, v] = lung.local(x, y);
        let share = inside(u.hypot(v), 0.06);
        value = mix(value, air(patient, &lung, [u, v], [x, y]), share);
    }
    value = bones(patient, view, [x, y], value);
    // The heart lies before the lungs.
    let grown = form(Finding::EnlargedHeart).map_or(1.0, |form| form.of([1.45, 1.8]));
    let [centre, radii] = match view {
        View::Frontal => [[0.1, 0.3], [0.26, 0.25]],
        View::Lateral => [[-0.22, 0.32], [0.25, 0.24]],
    };
    let radius = radii.map(|radius| radius * anatomy.heart * grown);
    let distance = ((x - centre[0]) / radius[0]).hypot((y - centre[1]) / radius[1].min(0.36));
    value = mix(value, 0.68, inside(distance, 0.08));
    if let Some(form) = form(Finding::Device) {
        value = device(form, view, centre, [x, y], value);
    }
    value
}

/// What a lung looks like at a point that is `[u, v]` in its own coordinates.
fn air(patient: &Patient, lung: &Lung, [u, v]: [f32; 2], [x, y]: [f32; 2]) -> f32 {
    let Anatomy { ribs, phase, .. } = patient.anatomy;
    let form = |finding| patient.form(finding).filter(|&form| lung.has(form));
    let mut value = 0.22 + 0.05 * (ribs * (y + 0.35 * x * x) + phase).cos();
    if let Some(form) = patient.form(Finding::Edema) {
        // Around the middle of the chest, whichever the lung.
        let haze = (-(x * x / 0.25 + (y + 0.02).powi(2) / 0.16)).exp();
        let grain = 1.0 + 0.4 * (19.0 * x + phase).cos() * (17.0 * y - phase).cos();
        value += form.of([0.22, 0.36]) * haze * grain;
    }
    if let Some(form) = form(Finding::Consolidation) {
        let width = form.of([0.26, 0.4]) / lung.radii[0].max(0.4) * 0.55;
        let [a, b] = form.place;
        let distance = ((u - a) / width).powi(2) + ((v - b) / (0.8 * width)).powi(2);
        value += 0.42 * (-distance).exp();
    }
    if let Some(form) = form(Finding::Pneumothorax) {
        let depth = form.of([0.5, 0.2]);
        // From the outer edge inwards; from above, where both lungs lie behind one another.
        let outwards = if lung.sign == 0.0 { -v } else { u * lung.sign };
        let share = 1.0 - inside(1.0 + outwards - depth, 0.04);
        let upper = if lung.sign == 0.0 {
            1.0
        } else {
            inside(1.0 + v - 0.35, 0.08)
        };
        value = mix(value, 0.02, share * upper);
    }
    if let Some(form) = form(Finding::Nodule) {
        let radius = form.of([0.075, 0.12]);
        let [a, b] = form.place;
        let (dx, dy) = ((u - a) * lung.radii[0], (v - b) * lung.radii[1]);
        value = mix(value, 0.85, inside(dx.hypot(dy) / radius, 0.1));
    }
    if let Some(form) = form(Finding::Effusion) {
        let level = form.of([0.42, 0.05]) - 0.18 * u * u;
        value = mix(value, 0.66, 1.0 - inside(1.0 + v - level, 0.04));
    }
    value.min(1.0)
}

/// The spine.
fn bones(patient: &Patient, view: View, [x, y]: [f32; 2], value: f32) -> f32 {
    let bend = patient.form(Finding::CurvedSpine).map_or(0.0, |form| {
        form.sign() * form.of([0.16, 0.26]) * (1.8 * y).cos()
    });
    let centre = match view {
        View::Frontal => bend,
        // Seen from the side it bends in depth: to the front or to the back.
        View::Lateral => 0.6 + bend - 0.1 * (1.6 * y).cos(),
    };
    let disc = 0.06 * (22.0 * y).cos();
    mix(
        value,
        0.8 + disc,
        0.8 * inside((x - centre).abs() / 0.065, 0.12),
    )
}

/// A box with a wire.
fn device(form: Form, view: View, heart: [f32; 2], [x, y]: [f32; 2], value: f32) -> f32 {
    let half = form.of([0.09, 0.14]);
    let centre = match view {
        View::Frontal => [0.58 * form.sign(), -0.62],
        View::Lateral => [-0.5, -0.62],
    };
    let [dx, dy] = [x - centre[0], y - centre[1]];
    let square = (dx / half).abs().max((dy / (0.75 * half)).abs());
    let value = mix(value, 1.0, inside(square, 0.08));
    let [wx, wy] = [heart[0] - centre[0], heart[1] - centre[1]];
    let along = ((dx * wx + dy * wy) / (wx * wx + wy * wy)).clamp(0.0, 1.0);
    let distance = (dx - along * wx).hypot(dy - along * wy);
    mix(value, 0.95, inside(distance / 0.02, 0.3))
}
