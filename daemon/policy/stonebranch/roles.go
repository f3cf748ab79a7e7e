package stonebranch

import "math/bits"

// roles is a set of roles.
type roles uint64

const (
	opsAdmin roles = 1 << iota
	opsAgentClusterAdmin
	opsAuditView
	opsBundleAdmin
	opsDashboardGlobal
	opsDashboardGroup
	opsDBA
	opsEmailAdmin
	opsFilterGlobal
	opsFilterGroup
	opsForecastView
	opsImex
	opsJCLEdit
	opsJCLView
	opsLDAPAdmin
	opsMultiUpdate
	opsOAuthAdmin
	opsOMSAdmin
	opsPeopleSoftAdmin
	opsPromotionAcceptBundle
	opsPromotionAdmin
	opsPropertyAdmin
	opsReportAdmin
	opsReportGlobal
	opsReportGroup
	opsReportPublish
	opsRestoreVersion
	opsSAPAdmin
	opsServerOperationAdmin
	opsService
	opsSimulationView
	opsSNMPAdmin
	opsSSOAdmin
	opsUniversalEventTemplateAdmin
	opsUniversalEventTemplateView
	opsUniversalTemplateAdmin
	opsUniversalTemplateView
	opsUserAdmin
	opsUserImpersonate
	opsWebhookAdmin
	opsWebhookView
	opsWidgetAdmin
	rolesEnd
)

// roleNames are the known roles (ST3), in the order of the constants.
var roleNames = [...]string{"ops_admin", "ops_agent_cluster_admin", "ops_audit_view", "ops_bundle_admin",
	"ops_dashboard_global", "ops_dashboard_group", "ops_dba", "ops_email_admin", "ops_filter_global",
	"ops_filter_group", "ops_forecast_view", "ops_imex", "ops_jcl_edit", "ops_jcl_view", "ops_ldap_admin",
	"ops_multi_update", "ops_oauth_admin", "ops_oms_admin", "ops_peoplesoft_admin", "ops_promotion_accept_bundle",
	"ops_promotion_admin", "ops_property_admin", "ops_report_admin", "ops_report_global", "ops_report_group",
	"ops_report_publish", "ops_restore_version", "ops_sap_admin", "ops_server_operation_admin", "ops_service",
	"ops_simulation_view", "ops_snmp_admin", "ops_sso_admin", "ops_universal_event_template_admin",
	"ops_universal_event_template_view", "ops_universal_template_admin", "ops_universal_template_view",
	"ops_user_admin", "ops_user_impersonate", "ops_webhook_admin", "ops_webhook_view", "ops_widget_admin"}

// The array and the constants have one length, or this does not compile.
var _ = [1]struct{}{}[rolesEnd-1<<len(roleNames)]

func roleOf(name string) roles {
	for i, n := range roleNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// name is that of the first role of the set.
func (r roles) name() string { return roleNames[bits.TrailingZeros64(uint64(r))] }

// names are those of all roles of the set.
func (r roles) names() []string {
	var names []string
	for ; r != 0; r &= r - 1 {
		names = append(names, r.name())
	}
	return names
}

// contained adds the roles that those of the set contain (ST1, ST2). No
// contained role contains another, so one step is the whole way.
func (r roles) contained() roles {
	if r&opsAdmin != 0 {
		return rolesEnd - 1
	}
	for _, c := range [...]struct{ role, contains roles }{
		{opsJCLEdit, opsJCLView},
		{opsPromotionAdmin, opsPromotionAcceptBundle},
		{opsReportAdmin, opsDashboardGlobal | opsDashboardGroup | opsReportGlobal | opsReportGroup | opsReportPublish | opsWidgetAdmin},
		{opsUniversalEventTemplateAdmin, opsUniversalEventTemplateView},
		{opsUniversalTemplateAdmin, opsUniversalTemplateView},
		{opsUserAdmin, opsUserImpersonate},
		{opsWebhookAdmin, opsWebhookView},
	} {
		if r&c.role != 0 {
			r |= c.contains
		}
	}
	return r
}

// keeper is the role that has every operation and command of a kind (ST4); 0 when there is none.
func (k kind) keeper() roles {
	switch k {
	case agentCluster:
		return opsAgentClusterAdmin
	case bundle:
		return opsBundleAdmin
	case databaseConnection:
		return opsDBA
	case emailConnection:
		return opsEmailAdmin
	case oauthClient:
		return opsOAuthAdmin
	case omsServer:
		return opsOMSAdmin
	case peopleSoftConnection:
		return opsPeopleSoftAdmin
	case sapConnection:
		return opsSAPAdmin
	case snmpManager:
		return opsSNMPAdmin
	case webhook:
		return opsWebhookAdmin
	case promotionTarget:
		return opsPromotionAdmin
	}
	return 0
}
