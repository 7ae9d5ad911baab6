//! How many objects the inventory holds: counted when somebody looks.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::{Kind, Mirror};

/// The number of objects of each kind.
pub struct Objects(Mirror);

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    /// Those in `mirror`.
    pub fn new(mirror: Mirror) -> Self {
        Self(mirror)
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Objects of the inventory";
        let mut family = encoder.encode_descriptor("objects", help, None, MetricType::Gauge)?;
        Kind::ALL.into_iter().try_for_each(|kind| {
            let count = i64::try_from(self.0.count(kind)).unwrap_or(i64::MAX);
            let label = [("kind", format!("{kind:?}"))];
            ConstGauge::new(count).encode(family.encode_family(&label)?)
        })
    }
}
