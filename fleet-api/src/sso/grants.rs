//! What the provider's groups are worth here. Pure.

use std::str::FromStr;

use serde_json::Value;

use crate::store::operators::Role;
use crate::store::tenants::TenantId;

/// A group, and what its members may do: `fleet-admins=admin`, or `acme=customer:acme`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    group: String,
    grant: Grant,
}

/// What somebody may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Their role.
    pub role: Role,
    /// The tenant that they belong to; a customer always has one, others never.
    pub tenant: Option<TenantId>,
}

/// Why a rule is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not GROUP=ROLE with the role admin, operator, viewer or customer:TENANT")]
pub struct BadRule(String);

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let bad = || BadRule(text.to_owned());
        // A group's name may hold the sign; a role's does not.
        let (group, role) = text.rsplit_once('=').ok_or_else(bad)?;
        let (role, tenant) = match role.split_once(':') {
            Some((role, tenant)) => (role, Some(tenant.parse().map_err(|_| bad())?)),
            None => (role, None),
        };
        let role: Role = role.parse().map_err(|_| bad())?;
        if group.is_empty() || (role == Role::Customer) != tenant.is_some() {
            return Err(bad());
        }
        Ok(Self {
            group: group.to_owned(),
            grant: Grant { role, tenant },
        })
    }
}

/// What somebody may do whose claim is `groups`: the first rule that names one of them. No rule, no
/// grant.
pub fn granted<'a>(rules: &'a [Rule], groups: Option<&Value>) -> Option<&'a Grant> {
    let has = |wanted: &str| match groups {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(all)) => all.iter().any(|group| group.as_str() == Some(wanted)),
        _ => false,
    };
    let found = rules.iter().find(|rule| has(&rule.group))?;
    Some(&found.grant)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|t| t.parse().expect("a rule")).collect()
    }

    #[test]
    fn the_first_rule_that_names_a_group_counts() {
        let rules = rules(&["ops=operator", "all=viewer", "cn=a,dc=b=customer:acme"]);
        let role = |groups: Value| granted(&rules, Some(&groups)).map(|grant| grant.role);

        assert_eq!(role(json!(["all", "ops"])), Some(Role::Operator));
        assert_eq!(role(json!("all")), Some(Role::Viewer));
        assert_eq!(role(json!(["cn=a,dc=b"])), Some(Role::Customer));
        for nothing in [
            json!([]),
            json!(["OPS"]),
            json!("ops all"),
            json!(null),
            json!({ "ops": true }),
            json!([["ops"]]),
            json!(7),
        ] {
            assert_eq!(role(nothing.clone()), None, "{nothing}");
        }
        assert_eq!(granted(&rules, None), None);
    }

    #[test]
    fn a_rule_that_gives_a_customer_no_tenant_or_anybody_else_one_is_none() {
        for bad in [
            "",
            "ops",
            "=admin",
            "ops=",
            "ops=root",
            "ops=customer",
            "ops=customer:",
            "ops=customer:a/b",
            "ops=admin:acme",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "{bad:?}");
        }
    }
}
