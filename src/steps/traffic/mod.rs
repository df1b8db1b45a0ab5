//! shiftTraffic: the weights of two destinations, in a VirtualService or an HTTPRoute.

mod http_route;
mod virtual_service;

use serde_json::Value;

use super::{Located, name_of, refused};
use crate::{
    api::step::{RouteKind, ShiftTraffic, Step, StepKind},
    decide::{fields, rollback::Failure},
};

/// One http route of a route object, with its destinations in order.
struct Route<'a> {
    /// Pointer to the route.
    pointer: String,
    /// Its name, where it has one.
    name: Option<&'a str>,
    /// What its destinations answer to, in order.
    destinations: Vec<Vec<String>>,
    /// What must stand unchanged for the route to be the same one: pointer and value.
    pins: Vec<(String, Value)>,
    /// The member that lists the destinations.
    list: &'static str,
}

/// The two weights, found by the route's name or else as the only route that holds both destinations.
pub(super) fn locate(shift: &ShiftTraffic, object: &Value) -> Result<Vec<Located>, Failure> {
    let routes = match shift.route_ref.kind {
        RouteKind::VirtualService => virtual_service::routes(object),
        RouteKind::HTTPRoute => http_route::routes(object),
    };
    let position = |route: &Route<'_>, wanted: &str| {
        route.destinations.iter().position(|names| names.iter().any(|name| name == wanted))
    };
    let (from, to) = (shift.from.as_str(), shift.to.as_str());
    let candidates: Vec<(&Route<'_>, usize, usize)> = routes
        .iter()
        .filter(|route| shift.route_ref.route.is_none() || route.name == shift.route_ref.route.as_deref())
        .filter_map(|route| Some((route, position(route, from)?, position(route, to)?)))
        .filter(|(_, from, to)| from != to)
        .collect();
    let what = format!("{:?} {}", shift.route_ref.kind, name_of(object));
    match candidates.as_slice() {
        [(route, from_at, to_at)] => {
            let weight = |index: &usize| format!("{}/{}/{index}/weight", route.pointer, route.list);
            let located = |name: &str, index| Located {
                field: fields::weight_field(name),
                pointer: weight(index),
                pins: route.pins.clone(),
            };
            Ok(vec![located(from, from_at), located(to, to_at)])
        }
        [] => Err(refused(
            "RouteNotFound",
            format!(
                "{what} has no http route{} with both destinations {from} and {to}: name the destinations as it does",
                shift.route_ref.route.as_ref().map_or_else(String::new, |name| format!(" named {name:?}"))
            ),
        )),
        several => {
            let names: Vec<String> =
                several.iter().map(|(route, ..)| route.name.map_or(route.pointer.clone(), str::to_owned)).collect();
            Err(refused(
                "RouteAmbiguous",
                format!(
                    "{what} has {} http routes with both destinations ({}): set routeRef.route",
                    several.len(),
                    names.join(", ")
                ),
            ))
        }
    }
}

/// The weight of a destination that states none. Gateway API: 1. Istio: 0, but 100 for a lone destination.
pub(super) fn default_weight(step: &Step, field: &str, _object: &Value) -> Option<String> {
    let StepKind::ShiftTraffic(shift) = step.kind() else { return None };
    field.starts_with("weight ").then(|| match shift.route_ref.kind {
        RouteKind::VirtualService => "0".to_owned(),
        RouteKind::HTTPRoute => "1".to_owned(),
    })
}
