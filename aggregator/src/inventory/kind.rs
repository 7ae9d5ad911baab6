//! What the inventory holds.

/// A kind of inventory record. The order is the order in which the inventory
/// is sent to a new connection: what others refer to comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// v1 Namespace
    Namespace,
    /// v1 Node
    Node,
    /// apps/v1 Deployment
    Deployment,
    /// apps/v1 StatefulSet
    StatefulSet,
    /// apps/v1 DaemonSet
    DaemonSet,
    /// apps/v1 ReplicaSet
    ReplicaSet,
    /// batch/v1 Job
    Job,
    /// batch/v1 CronJob
    CronJob,
    /// a v1 Pod that nothing owns; it is a workload of its own
    OwnerlessPod,
    /// v1 Pod, owned or not
    Pod,
    /// v1 Service
    Service,
    /// networking.k8s.io/v1 NetworkPolicy
    NetworkPolicy,
    /// security.istio.io AuthorizationPolicy
    AuthorizationPolicy,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 13] = [
        Self::Namespace,
        Self::Node,
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::Job,
        Self::CronJob,
        Self::OwnerlessPod,
        Self::Pod,
        Self::Service,
        Self::NetworkPolicy,
        Self::AuthorizationPolicy,
    ];

    /// Number of the `StreamDataRequest` member that carries this kind.
    pub(super) fn envelope_field(self) -> u32 {
        match self {
            Self::Namespace => 5,
            Self::Node => 17,
            Self::Pod => 14,
            Self::Service => 8,
            Self::NetworkPolicy => 2,
            Self::AuthorizationPolicy => 11,
            _workload => 4,
        }
    }

    /// Number of the field `action` in the message of this kind.
    pub(super) fn action_field(self) -> u32 {
        match self {
            Self::Namespace => 5,
            Self::Node => 11,
            Self::Pod => 9,
            Self::Service => 12,
            Self::NetworkPolicy | Self::AuthorizationPolicy => 6,
            _workload => 7,
        }
    }
    /// Number of the field with the workloads that this kind selects.
    pub(super) fn targets_field(self) -> Option<u32> {
        matches!(self, Self::NetworkPolicy | Self::AuthorizationPolicy).then_some(5)
    }
}
