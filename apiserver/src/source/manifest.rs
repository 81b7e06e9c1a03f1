//! From a document to the object that it declares.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::debug;

use super::document::Document;
use super::locate::{locate, place_of};
use super::problem::Place;
use crate::objects::{
    CiliumPolicy, EndpointSlice, FieldError, Namespace, NetworkPolicy, Node, Notes, Object, ObjectId, Pod,
    Service,
};

/// What a document turned out to be.
#[derive(Debug)]
pub(super) enum Manifest {
    /// An object that is in order, with notes about it.
    Object(Box<Object>, Vec<Fault>),
    /// An object that is not.
    Refused(ObjectId, Fault),
    /// Something that is not even known to be an object, so that anything may be in it.
    Unreadable(Fault),
    /// An object of a kind that is not looked at.
    Ignored,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Option<Place>,
    pub(super) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

/// The API group and version that each kind is read from.
const KINDS: [(&str, &str); 8] = [
    ("Namespace", "v1"),
    ("Node", "v1"),
    ("Pod", "v1"),
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("CiliumNetworkPolicy", "cilium.io/v2"),
    ("CiliumClusterwideNetworkPolicy", "cilium.io/v2"),
    ("NetworkPolicy", "networking.k8s.io/v1"),
];

/// Reads a document.
pub(super) fn read(document: &Document) -> Manifest {
    let header: Header = match parse(document) {
        Ok(header) => header,
        Err(fault) => return Manifest::Unreadable(fault),
    };
    if header.kind == "List" {
        let message =
            "lists are not read: give each object a document of its own, with --- before it".to_owned();
        return Manifest::Unreadable(Fault { place: None, message });
    }
    let Some((_, version)) = KINDS.into_iter().find(|(kind, _)| *kind == header.kind) else {
        debug!(
            kind = header.kind,
            api_version = header.api_version,
            "manifest of a kind that is not looked at"
        );
        return Manifest::Ignored;
    };
    let group =
        |version: &str| version.rsplit_once('/').map_or_else(String::new, |(group, _)| group.to_owned());
    if group(version) != group(&header.api_version) {
        return Manifest::Ignored; // another project's kind of the same name
    }
    let id = header.id();
    if version != header.api_version {
        let message = format!("{} is read as {version}, not as {}", header.kind, header.api_version);
        return Manifest::Refused(id, Fault { place: None, message });
    }
    let mut notes = Notes::new();
    match object(&header.kind, document, &mut notes) {
        Ok(object) => {
            let notes = notes.into_iter().map(|note| fault(document, &note)).collect();
            Manifest::Object(Box::new(object), notes)
        }
        Err(fault) => Manifest::Refused(id, fault),
    }
}

impl Header {
    fn id(&self) -> ObjectId {
        let is_in_no_namespace =
            matches!(self.kind.as_str(), "Namespace" | "Node" | "CiliumClusterwideNetworkPolicy");
        let namespace = self.metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let namespace = (!is_in_no_namespace).then(|| namespace.unwrap_or("default"));
        ObjectId::new(&self.kind, namespace, self.metadata.name.as_deref().unwrap_or_default())
    }
}

fn object(kind: &str, document: &Document, notes: &mut Notes) -> Result<Object, Fault> {
    let object = match kind {
        "Namespace" => Namespace::from_kubernetes(parse::<core::Namespace>(document)?).map(Object::Namespace),
        "Node" => Node::from_kubernetes(parse::<core::Node>(document)?).map(Object::Node),
        "Pod" => Pod::from_kubernetes(parse::<core::Pod>(document)?).map(Object::Pod),
        "Service" => Service::from_kubernetes(parse::<core::Service>(document)?, notes).map(Object::Service),
        "EndpointSlice" => EndpointSlice::from_kubernetes(parse::<discovery::EndpointSlice>(document)?)
            .map(Object::EndpointSlice),
        "NetworkPolicy" => parse::<NetworkPolicy>(document)?.read().map(Object::Policy),
        _ => {
            let clusterwide = kind == "CiliumClusterwideNetworkPolicy";
            parse::<CiliumPolicy>(document)?.read(clusterwide).map(Object::Policy)
        }
    };
    object.map_err(|error| fault(document, &error))
}

fn fault(document: &Document, error: &FieldError) -> Fault {
    Fault { place: locate(&document.0, &error.path), message: error.to_string() }
}

fn parse<T: DeserializeOwned>(Document(text): &Document) -> Result<T, Fault> {
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().and_then(place_of);
        Fault { place, message: message_of(&error) }
    })
}

/// The parser's message without the place, which is told beside it.
fn message_of(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}
