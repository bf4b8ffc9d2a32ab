//! Tensors to try things on, the same on every machine: what a newcomer sends before own data is at hand.

use quantd_codec::json::Room;
use quantd_core::tensor::{DType, Shape, Tensor};

use super::answer::Answer;
use super::error::{Error, Kind, Place};
use super::payload::Format;

/// Formats of a sample, the file that most tools read first.
pub const FORMATS: [Format; 4] = [Format::Npy, Format::Safetensors, Format::Json, Format::Raw];

/// A tensor that is made, F32.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Name in paths.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Extents.
    pub shape: &'static [usize],
    /// The element at an index, made of a standard normal number.
    element: fn(index: usize, normal: f64) -> f64,
}

/// Every sample.
pub const SAMPLES: [Sample; 4] = [
    Sample {
        name: "weights",
        summary: "a linear layer's weights, [outputs, inputs]: normal, deviation 0.05",
        shape: &[256, 512],
        element: |_, normal| 0.05 * normal,
    },
    Sample {
        name: "outliers",
        summary: "the same with every 64th input 20 times as large: what one scale for all does badly",
        shape: &[256, 512],
        element: |index, normal| if index % 64 == 0 { normal } else { 0.05 * normal },
    },
    Sample {
        name: "kernel",
        summary: "a convolution's weights, [outputs, inputs, height, width]: each output up to 16 times \
                  as large as another",
        shape: &[64, 32, 3, 3],
        element: |index, normal| {
            let doublings = (index / (32 * 3 * 3)) % 5;
            0.01 * f64::from(1_u32 << doublings) * normal
        },
    },
    Sample {
        name: "activations",
        summary: "what leaves a ReLU, [tokens, features]: half zeros",
        shape: &[64, 512],
        element: |_, normal| normal.max(0.0),
    },
];

/// The sample of that name.
///
/// # Errors
/// [`Kind::NotFound`] for a name that is none.
pub fn find(name: &str) -> Result<&'static Sample, Error> {
    SAMPLES.iter().find(|sample| sample.name == name).ok_or_else(|| {
        let names = SAMPLES.map(|sample| sample.name).join(", ");
        Error::new(Kind::NotFound, "no such sample")
            .at(Place::Parameter("name".to_owned()))
            .cure(format!("use one of: {names}"))
    })
}

impl Sample {
    /// Bytes that the sample and its answer in any format take at most.
    #[must_use]
    pub fn cost(&self) -> usize {
        // An element, its text (twice while that grows) and its commas.
        self.shape.iter().product::<usize>() * 40 + (4 << 10)
    }

    /// The sample as an answer of that format, whose text takes of that room.
    ///
    /// # Errors
    /// There is no room.
    pub fn answer(&self, format: Format, room: Room<'_>) -> Result<Answer, Error> {
        let tensor = self.tensor()?;
        match format {
            Format::Npy | Format::Raw => Ok(Answer::tensor(tensor, format, Vec::new())),
            Format::Safetensors => {
                Ok(Answer::safetensors(vec![("data".to_owned(), tensor)], &Default::default()))
            }
            Format::Json => Answer::object(room, |writer| writer.numbers(&tensor)),
        }
    }

    fn tensor(&self) -> Result<Tensor, Error> {
        use quantd_kernels::real::Real;
        let mut normals = Normals { state: 0 };
        let elements: Vec<f32> = (0..self.shape.iter().product())
            .map(|index| <f32 as Real>::from_f64((self.element)(index, normals.next())))
            .collect();
        Shape::new(self.shape.to_vec())
            .ok()
            .and_then(|shape| Tensor::from_elements(DType::F32, shape, &elements))
            .ok_or_else(|| Error::new(Kind::Internal, "a sample does not fit its shape"))
    }
}

/// Standard normal numbers: `SplitMix64` (Steele, Lea, Flood 2014), then Box and Muller's transform with
/// functions that give the same bits everywhere.
struct Normals {
    state: u64,
}

impl Normals {
    fn next(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(std::f64::consts::TAU * angle)
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use quantd_core::tensor::Reals;

    use super::*;

    fn elements(name: &str) -> Vec<f32> {
        match find(name).unwrap().tensor().unwrap().reals() {
            Reals::F32(reals) => reals.to_vec(),
            Reals::F64(_) => panic!("samples are F32"),
        }
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs of SplitMix64 from the seed 0, as in its reference implementation's tests.
        let mut normals = Normals { state: 0 };
        let first = [0xe220_a839_7b1d_cdaf_u64, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        for expected in first {
            let uniform = ((expected >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            assert_eq!(normals.uniform().to_bits(), uniform.to_bits());
        }
    }

    #[test]
    fn samples_are_what_their_summaries_say() {
        let deviation = |x: &[f32]| {
            let squares: f64 = x.iter().map(|x| f64::from(x * x)).sum();
            (squares / x.len() as f64).sqrt()
        };
        let weights = elements("weights");
        assert!((0.0495..0.0505).contains(&deviation(&weights)));
        let mean = weights.iter().map(|&x| f64::from(x)).sum::<f64>() / weights.len() as f64;
        assert!(mean.abs() < 5e-4, "{mean}");
        let outliers = elements("outliers");
        assert!(
            outliers
                .iter()
                .step_by(64)
                .zip(weights.iter().step_by(64))
                .all(|(a, b)| { (a - 20.0 * b).abs() <= a.abs() * 1e-6 })
        );
        let kernel = elements("kernel");
        let outputs: Vec<f64> = kernel.chunks(32 * 9).map(deviation).collect();
        assert!(outputs[4] / outputs[0] > 12.0);
        let activations = elements("activations");
        let zeros = activations.iter().filter(|&&x| x == 0.0).count() as f64;
        assert!((0.48..0.52).contains(&(zeros / activations.len() as f64)));
    }

    #[test]
    fn unknown_names_are_told_the_known_ones() {
        let error = find("weight").unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert!(error.cure.contains("weights, outliers, kernel, activations"));
    }
}
