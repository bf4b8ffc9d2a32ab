//! From flat options to a [`Scheme`]: defaults and contradictions.

use crate::QuantError;
use crate::format::{Format, INTEGER};
use crate::params::{Numerics, Profile};

use super::{
    Granularity, GranularityName, NanPolicy, RangeMethod, RangeName, ScaleRounding, Scheme,
};

/// The fields of a scheme that were given, each valid by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// How numbers are stored.
    pub format: Option<&'static dyn Format>,
    /// Bits of a code.
    pub bits: Option<u32>,
    /// Signed codes.
    pub signed: Option<bool>,
    /// Symmetric codes.
    pub symmetric: Option<bool>,
    /// Without the most negative code.
    pub restricted: Option<bool>,
    /// Which elements share parameters.
    pub granularity: Option<GranularityName>,
    /// Axis of channels or groups, or of a softmax.
    pub axis: Option<i64>,
    /// Elements of a group.
    pub group_size: Option<usize>,
    /// Rows and columns of a block.
    pub block_shape: Option<[usize; 2]>,
    /// Range method.
    pub range: Option<RangeName>,
    /// Percentile of the range.
    pub percentile: Option<f64>,
    /// Lower ends of explicit ranges.
    pub min: Option<Vec<f64>>,
    /// Upper ends of explicit ranges.
    pub max: Option<Vec<f64>>,
    /// Explicit scales.
    pub scale: Option<Vec<f64>>,
    /// Explicit zero points.
    pub zero_point: Option<Vec<i64>>,
    /// Whose numerics.
    pub profile: Option<Profile>,
    /// NaN policy.
    pub nan: Option<NanPolicy>,
    /// Packed codes.
    pub packed: Option<bool>,
    /// What is too large becomes the largest number.
    pub saturate: Option<bool>,
    /// How scales that are powers of two are found.
    pub scale_rounding: Option<ScaleRounding>,
}

impl Options {
    /// Nothing said: an int8 tensor with one scale.
    pub const NONE: Self = Self {
        format: None,
        bits: None,
        signed: None,
        symmetric: None,
        restricted: None,
        granularity: None,
        axis: None,
        group_size: None,
        block_shape: None,
        range: None,
        percentile: None,
        min: None,
        max: None,
        scale: None,
        zero_point: None,
        profile: None,
        nan: None,
        packed: None,
        saturate: None,
        scale_rounding: None,
    };

    /// The format that is named, or integers.
    #[must_use]
    pub fn format(&self) -> &'static dyn Format {
        self.format.unwrap_or(&INTEGER)
    }

    /// Checks the fields against one another and fills in the defaults.
    ///
    /// # Errors
    /// [`QuantError`] names a field that contradicts another.
    pub fn resolve(&self) -> Result<Scheme, QuantError> {
        self.format().resolve(self)
    }

    /// What `base` says where these say nothing. Granularity and range come from it only as a whole: to name any of
    /// them replaces what `base` has.
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        let own =
            (self.granularity.is_some(), self.group_size.is_some(), self.block_shape.is_some());
        let own_range = self.range.is_some()
            || self.percentile.is_some()
            || [&self.min, &self.max, &self.scale].into_iter().any(Option::is_some)
            || self.zero_point.is_some();
        let mut all = Self {
            format: self.format.or(base.format),
            bits: self.bits.or(base.bits),
            signed: self.signed.or(base.signed),
            symmetric: self.symmetric.or(base.symmetric),
            restricted: self.restricted.or(base.restricted),
            profile: self.profile.or(base.profile),
            nan: self.nan.or(base.nan),
            packed: self.packed.or(base.packed),
            saturate: self.saturate.or(base.saturate),
            scale_rounding: self.scale_rounding.or(base.scale_rounding),
            ..self
        };
        if own == (false, false, false) && base.granularity.is_some() {
            all.granularity = base.granularity;
            all.axis = all.axis.or(base.axis);
            all.group_size = base.group_size;
            all.block_shape = base.block_shape;
        }
        if !own_range {
            all.range = base.range;
            all.percentile = base.percentile;
        }
        all
    }

    /// Whether codes of so many bits are packed; those of 8 and 16 fill their bytes as they are.
    #[must_use]
    pub fn packing(&self, bits: u32) -> bool {
        bits < 8 && self.packed == Some(true)
    }

    /// Refuses fields that a format has no use for.
    ///
    /// # Errors
    /// [`QuantError`] names the first one.
    pub(crate) fn refuse(
        &self,
        format: &dyn Format,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<(), QuantError> {
        let fields = [
            ("bits", self.bits.is_some()),
            ("signed", self.signed.is_some()),
            ("symmetric", self.symmetric.is_some()),
            ("restricted", self.restricted.is_some()),
            ("granularity", self.granularity.is_some()),
            ("axis", self.axis.is_some()),
            ("group_size", self.group_size.is_some()),
            ("block_shape", self.block_shape.is_some()),
            ("range", self.range.is_some()),
            ("percentile", self.percentile.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("scale", self.scale.is_some()),
            ("zero_point", self.zero_point.is_some()),
            ("profile", self.profile.is_some()),
            ("nan", self.nan.is_some()),
            ("packed", self.packed.is_some()),
            ("saturate", self.saturate.is_some()),
            ("scale_rounding", self.scale_rounding.is_some()),
        ];
        let surplus = |(field, given): &(&'static str, bool)| *given && !is_taken(field);
        match fields.into_iter().find(surplus) {
            None => Ok(()),
            Some((field, _)) => {
                let detail = format!("does not go with format {}", format.name());
                Err(QuantError::field(field, detail).cure(format!("leave {field} out")))
            }
        }
    }

    /// Whether anything says which elements share parameters.
    #[must_use]
    pub const fn names_granularity(&self) -> bool {
        self.granularity.is_some()
            || self.axis.is_some()
            || self.group_size.is_some()
            || self.block_shape.is_some()
    }

    /// The granularity alone, for codes that are quantized already.
    ///
    /// # Errors
    /// [`QuantError`] names a field that contradicts another.
    pub fn resolve_granularity(&self) -> Result<Granularity, QuantError> {
        let range = match self.range {
            Some(RangeName::CrossEntropy) => RangeMethod::CrossEntropy { axis: -1 },
            _ => RangeMethod::MinMax,
        };
        self.granularity(&range)
    }

    /// The granularity, named or implied by the fields that only one has.
    pub(crate) fn granularity(&self, range: &RangeMethod) -> Result<Granularity, QuantError> {
        use GranularityName::{Block, Channel, Group, Tensor, Token};
        let softmax = matches!(range, RangeMethod::CrossEntropy { .. });
        let word =
            self.granularity.unwrap_or(match (self.group_size, self.block_shape, self.axis) {
                (Some(_), _, _) => Group,
                (None, Some(_), _) => Block,
                (None, None, Some(_)) if !softmax => Channel,
                _ => Tensor,
            });
        let name = crate::word::Word::name(word);
        let misplaced: [(_, _, &[GranularityName], _); 3] = [
            ("axis", self.axis.is_some(), &[Channel, Group], "channel"),
            ("group_size", self.group_size.is_some(), &[Group], "group"),
            ("block_shape", self.block_shape.is_some(), &[Block], "block"),
        ];
        for (field, given, needs, first) in misplaced {
            let allowed = needs.contains(&word) || (field == "axis" && softmax && word == Tensor);
            if given && !allowed {
                let detail = format!("does not go with granularity {name}");
                let cure = format!("use granularity {first}, or leave {field} out");
                return Err(QuantError::field(field, detail).cure(cure));
            }
        }
        let missing = |field: &'static str, cure: &'static str| {
            QuantError::field(field, format!("missing for granularity {name}")).cure(cure)
        };
        Ok(match word {
            Channel => Granularity::Channel { axis: self.axis.unwrap_or(0) },
            Group => Granularity::Group {
                axis: self.axis.unwrap_or(-1),
                size: self.group_size.ok_or_else(|| missing("group_size", "for instance 128"))?,
            },
            Block => Granularity::Block {
                shape: self
                    .block_shape
                    .ok_or_else(|| missing("block_shape", "for instance [128, 128]"))?,
            },
            Token => Granularity::Token,
            Tensor => Granularity::Tensor,
        })
    }

    /// The range method, named or implied by the fields that only one has; given scales are those of codes of
    /// `numerics`, or, without, have no zero points.
    pub(crate) fn range(&self, numerics: Option<&Numerics>) -> Result<RangeMethod, QuantError> {
        let explicit = [
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("scale", self.scale.is_some()),
            ("zero_point", self.zero_point.is_some()),
        ];
        let any_explicit = explicit.iter().any(|(_, given)| *given);
        let word = self.range.unwrap_or(match (any_explicit, self.percentile) {
            (true, _) => RangeName::Explicit,
            (false, Some(_)) => RangeName::Percentile,
            (false, None) => RangeName::MinMax,
        });
        let misfit = || format!("does not go with range {}", crate::word::Word::name(word));
        if self.percentile.is_some() && word != RangeName::Percentile {
            return Err(QuantError::field("percentile", misfit())
                .cure("use range percentile, or leave percentile out"));
        }
        let surplus = explicit.iter().find(|(_, given)| *given && word != RangeName::Explicit);
        if let Some(&(field, _)) = surplus {
            return Err(QuantError::field(field, misfit())
                .cure("use range explicit, or leave the field out"));
        }
        Ok(match word {
            RangeName::MinMax => RangeMethod::MinMax,
            RangeName::Percentile => match self.percentile {
                Some(percentile) => RangeMethod::Percentile(percentile),
                None => {
                    return Err(
                        QuantError::field("percentile", "missing").cure("for instance 99.9")
                    );
                }
            },
            RangeName::Mse => RangeMethod::Mse,
            RangeName::EntropyOrt => RangeMethod::EntropyOrt,
            RangeName::EntropyTensorrt => RangeMethod::EntropyTensorrt,
            RangeName::EntropyModelopt => RangeMethod::EntropyModelopt,
            RangeName::CrossEntropy => RangeMethod::CrossEntropy { axis: self.axis.unwrap_or(-1) },
            RangeName::Explicit => self.explicit(numerics)?,
        })
    }

    fn explicit(&self, numerics: Option<&Numerics>) -> Result<RangeMethod, QuantError> {
        let refuse = |field, detail: &'static str, cure: &'static str| {
            Err(QuantError::field(field, detail).cure(cure))
        };
        match (&self.min, &self.max, &self.scale) {
            (Some(min), Some(max), None) if self.zero_point.is_none() => {
                let pairs = min.len().max(max.len());
                let at = |values: &[f64], i: usize| values.get(i).or(values.first()).copied();
                if (0..pairs).any(|i| at(min, i) > at(max, i)) {
                    return refuse("min", "above max", "swap them");
                }
                Ok(RangeMethod::Explicit { min: min.clone(), max: max.clone() })
            }
            (None, None, Some(scale)) => {
                if scale.iter().any(|&scale| scale <= 0.0) {
                    return refuse("scale", "not positive", "a scale is the step between codes");
                }
                let zero_point = numerics.map(|numerics| self.given_zero_points(numerics));
                let zero_point = zero_point.transpose()?.unwrap_or_default();
                Ok(RangeMethod::Given { scale: scale.clone(), zero_point })
            }
            (_, _, None) if self.zero_point.is_some() => {
                refuse("zero_point", "given without scale", "add scale, or leave zero_point out")
            }
            (Some(_), None, None) => refuse("max", "missing", "range explicit takes min and max"),
            (None, Some(_), None) => refuse("min", "missing", "range explicit takes min and max"),
            (None, None, None) => refuse(
                "range",
                "explicit, but nothing given",
                "add min and max, or scale and zero_point",
            ),
            _ => refuse("scale", "contradicts min and max", "give the range, or the scale"),
        }
    }

    fn given_zero_points(&self, numerics: &Numerics) -> Result<Vec<i32>, QuantError> {
        let codes = numerics.code_range();
        let one = |&z: &i64| match i32::try_from(z) {
            Ok(z) if (codes.min..=codes.max).contains(&z) => Ok(z),
            _ => Err(QuantError::field("zero_point", "not one of the codes")
                .cure(format!("use {} to {}", codes.min, codes.max))),
        };
        let zero_point =
            self.zero_point.iter().flatten().map(one).collect::<Result<Vec<i32>, _>>()?;
        if numerics.symmetric && zero_point.iter().any(|&z| z != numerics.middle()) {
            return Err(QuantError::field("zero_point", "contradicts symmetric")
                .cure("leave one of them out"));
        }
        Ok(zero_point)
    }
}

/// The fields that say a granularity.
impl From<Granularity> for Options {
    fn from(granularity: Granularity) -> Self {
        let mut options = Self { granularity: Some(granularity.word()), ..Self::NONE };
        match granularity {
            Granularity::Tensor | Granularity::Token => {}
            Granularity::Channel { axis } => options.axis = Some(axis),
            Granularity::Group { axis, size } => {
                (options.axis, options.group_size) = (Some(axis), Some(size));
            }
            Granularity::Block { shape } => options.block_shape = Some(shape),
        }
        options
    }
}
