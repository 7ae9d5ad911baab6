//! What takes the objects of a watch.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Resource;
use prost::Message;

use super::{Kind, Mirror, Pods, Relation, convert};
use crate::excluded::Excluded;

/// Takes the objects of one watch, one after another, and keeps none of them.
pub(crate) trait Sink<K>: Send + 'static {
    /// A list begins: what it does not mention is gone when it ends.
    fn begin(&self);
    /// The object is so.
    fn apply(&self, object: &K);
    /// The object is gone; this was its last state.
    fn remove(&self, object: &K);
    /// The list is complete.
    fn finish(&self);
    /// There is no list at present, and nobody shall wait for it.
    fn skip(&self) {}
    /// From now on what changes is seen at once, or is not.
    fn hears(&self, _does: bool) {}
}

/// All who take the objects of one watch, in this order.
pub(super) type Takers<K> = Vec<Box<dyn Sink<K>>>;

impl<K: 'static> Sink<K> for Takers<K> {
    fn begin(&self) {
        self.iter().for_each(|taker| taker.begin());
    }

    fn apply(&self, object: &K) {
        self.iter().for_each(|taker| taker.apply(object));
    }

    fn remove(&self, object: &K) {
        self.iter().for_each(|taker| taker.remove(object));
    }

    fn finish(&self) {
        self.iter().for_each(|taker| taker.finish());
    }

    fn skip(&self) {
        self.iter().for_each(|taker| taker.skip());
    }

    fn hears(&self, does: bool) {
        self.iter().for_each(|taker| taker.hears(does));
    }
}

/// Objects that become records of one kind; `convert` gives `None` for those
/// that are none (any more). `relate` says what else the mirror has to know.
pub(super) struct Records<F, R> {
    pub(super) mirror: Mirror,
    pub(super) kind: Kind,
    pub(super) convert: F,
    pub(super) relate: R,
}

impl<K, M, F, R> Sink<K> for Records<F, R>
where
    K: Resource,
    M: Message,
    F: Fn(&K) -> Option<M> + Send + 'static,
    R: Fn(&K) -> Relation<'_> + Send + 'static,
{
    fn begin(&self) {
        self.mirror.begin(self.kind);
    }

    fn apply(&self, object: &K) {
        match (self.convert)(object) {
            Some(record) => {
                let relation = (self.relate)(object);
                self.mirror.apply_related(self.kind, uid(object), &record, relation);
            }
            None => self.mirror.remove(self.kind, uid(object)),
        }
    }

    fn remove(&self, object: &K) {
        self.mirror.remove(self.kind, uid(object));
    }

    fn finish(&self) {
        self.mirror.finish(self.kind);
    }

    fn skip(&self) {
        self.mirror.skip(self.kind);
    }
}

/// Pods: their records, of which what runs where is a part.
pub(super) struct PodSink {
    pub(super) mirror: Mirror,
    pub(super) pods: Pods,
}

impl Sink<Pod> for PodSink {
    fn begin(&self) {
        self.mirror.begin(Kind::Pod);
        self.pods.begin();
    }

    fn apply(&self, object: &Pod) {
        let relation = Relation::Pod(object);
        let record = self.mirror.apply_related(Kind::Pod, uid(object), &convert::pod(object), relation);
        self.pods.apply(object, record);
    }

    fn remove(&self, object: &Pod) {
        self.mirror.remove(Kind::Pod, uid(object));
        self.pods.remove(object);
    }

    fn finish(&self) {
        self.mirror.finish(Kind::Pod);
        self.pods.finish();
    }

    fn skip(&self) {
        self.mirror.skip(Kind::Pod);
        self.pods.skip();
    }
}

/// Namespaces: what they say of their pods.
pub(super) struct NamespaceSink(pub(super) Pods);

impl Sink<Namespace> for NamespaceSink {
    fn begin(&self) {}

    fn apply(&self, object: &Namespace) {
        self.0.apply_namespace(object);
    }

    fn remove(&self, object: &Namespace) {
        self.0.remove_namespace(object);
    }

    fn finish(&self) {}
}

/// Hands on what is not in one of the namespaces.
pub(super) struct Outside<S> {
    pub(super) excluded: Excluded,
    pub(super) sink: S,
}

impl<K: Resource, S: Sink<K>> Sink<K> for Outside<S> {
    fn begin(&self) {
        self.sink.begin();
    }

    fn apply(&self, object: &K) {
        if !object.meta().namespace.as_deref().is_some_and(|name| self.excluded.has(name)) {
            self.sink.apply(object);
        }
    }

    fn remove(&self, object: &K) {
        self.sink.remove(object);
    }

    fn finish(&self) {
        self.sink.finish();
    }

    fn skip(&self) {
        self.sink.skip();
    }

    fn hears(&self, does: bool) {
        self.sink.hears(does);
    }
}

/// The object's UID.
pub(crate) fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}
