//! Random operations on the objects of an API server.

use std::time::Duration;

use axum::http::{Method, Request, header::CONTENT_TYPE};
use fastrand::Rng;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::resource::{self, AUTHORIZATION_POLICY, JOB, NAMESPACE, POD, REPLICA_SET, Resource};

/// There are about so many objects.
const OBJECTS: usize = 100;

/// Namespaces that stay, in which everything is.
const NAMESPACES: [&str; 3] = ["red", "green", "blue"];

pub(crate) struct Operations {
    client: Client,
    random: Rng,
    objects: Vec<(Resource, String)>,
    created: u32,
    has_istio: bool,
    /// A ReplicaSet and a Job of each namespace, as owners of pods. They stay: nobody would remove the pods of one
    /// that goes.
    controllers: Vec<(&'static str, Value)>,
}

impl Operations {
    /// The namespaces are there, and a few objects.
    pub(crate) async fn begin(client: Client, random: Rng) -> Self {
        let mut operations = Self {
            client,
            random,
            objects: Vec::new(),
            created: 0,
            has_istio: false,
            controllers: Vec::new(),
        };
        for namespace in NAMESPACES {
            let object = NAMESPACE.object(namespace, &mut operations.random);
            operations.request(Method::POST, &NAMESPACE.path(), &object).await;
            for resource in [REPLICA_SET, JOB] {
                operations.create_controller(resource, namespace).await;
            }
        }
        while operations.objects.len() < OBJECTS / 2 {
            operations.create().await;
        }
        operations
    }

    async fn create_controller(&mut self, resource: Resource, namespace: &'static str) {
        let object = resource.object("controller", &mut self.random);
        let created = self.request(Method::POST, &resource.path_in(namespace), &object).await;
        let owner = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind, "name": "controller",
            "uid": created["metadata"]["uid"], "controller": true,
        });
        self.controllers.push((namespace, owner));
    }

    /// From now on there are AuthorizationPolicies.
    pub(crate) async fn install_istio(&mut self) {
        let definition = resource::authorization_policy_definition();
        self.request(Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition)
            .await;
        let path = AUTHORIZATION_POLICY.path();
        let list = || Request::get(&path).body(Vec::new()).unwrap();
        while self.client.request::<Value>(list()).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        self.has_istio = true;
    }

    /// One of everything that can happen to an object.
    pub(crate) async fn step(&mut self) {
        let operation = self.random.u8(..10);
        if operation < 2 && self.objects.len() < OBJECTS {
            return self.create().await;
        }
        let place = self.random.usize(..self.objects.len());
        let (resource, path) = self.objects[place].clone();
        let random = &mut self.random;
        let (path, patch) = match operation {
            0 | 1 => {
                self.objects.swap_remove(place);
                return self.delete(resource, &path).await;
            }
            2 | 3 => (path, json!({"metadata": {"labels": resource::labels(random)}})),
            4 | 5 => (path, json!({"metadata": {"ownerReferences": resource::owners(random)}})),
            _ => match resource.status(random) {
                Some(status) => (format!("{path}/status"), json!({"status": status})),
                None => return,
            },
        };
        self.request(Method::PATCH, &path, &patch).await;
    }

    async fn create(&mut self) {
        // Pods are the most, and change the most.
        let any = self.random.choice(resource::ALL).unwrap_or(POD);
        if any.kind == AUTHORIZATION_POLICY.kind && !self.has_istio {
            return;
        }
        let resource = if self.random.bool() { POD } else { any };
        self.created += 1;
        let name = format!("object-{}", self.created);
        let namespace = self.random.choice(NAMESPACES).unwrap_or_default();
        let path = resource.path_in(namespace);
        let mut object = resource.object(&name, &mut self.random);
        if resource.kind == POD.kind && self.random.bool() {
            let near = self.controllers.iter().filter(|(of, _)| *of == namespace);
            let owners: Vec<&Value> = near.map(|(_, owner)| owner).collect();
            object["metadata"]["ownerReferences"] = json!([self.random.choice(owners)]);
        }
        self.request(Method::POST, &path, &object).await;
        self.objects.push((resource, format!("{path}/{name}")));
    }

    async fn delete(&self, resource: Resource, path: &str) {
        let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        let mut left = self.request(Method::DELETE, path, &now).await;
        if resource.kind == NAMESPACE.kind {
            // There is no controller that would do it.
            left["spec"]["finalizers"] = json!([]);
            self.request(Method::PUT, &format!("{path}/finalize"), &left).await;
        }
    }

    async fn request(&self, method: Method, path: &str, body: &Value) -> Value {
        let content =
            if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content);
        let request = request.body(body.to_string().into_bytes()).unwrap();
        self.client.request(request).await.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }
}
