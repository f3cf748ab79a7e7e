package stonebranch_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/stonebranch"
)

// plainDoc is a document as it is written; its methods read the rules off it
// one by one, slowly and plainly.
type plainDoc struct {
	Model      string               `json:"model"`
	Properties map[string]bool      `json:"properties"`
	Users      map[string]plainUser `json:"users"`
	Groups     map[string]plainUser `json:"groups"`
}

type plainUser struct {
	Groups      []string    `json:"groups,omitempty"`
	Roles       []string    `json:"roles"`
	Permissions []plainPerm `json:"permissions"`
}

type plainPerm struct {
	Type     string         `json:"type"`
	Name     string         `json:"name"`
	Services *plainServices `json:"business_services,omitempty"`
	Ops      []string       `json:"operations"`
	Commands []string       `json:"commands"`
}

type plainServices struct {
	Criterion string   `json:"criterion"`
	Services  []string `json:"services"`
}

var (
	plainContains = map[string]string{"ops_promotion_admin": "ops_promotion_accept_bundle", "ops_user_admin": "ops_user_impersonate",
		"ops_webhook_admin": "ops_webhook_view", "ops_jcl_edit": "ops_jcl_view",
		"ops_report_admin": "ops_dashboard_global ops_dashboard_group ops_report_global ops_report_group ops_report_publish ops_widget_admin"}
	plainKeepers = map[string]string{"Database Connection": "ops_dba", "Bundle": "ops_bundle_admin", "Webhook": "ops_webhook_admin", "Promotion Target": "ops_promotion_admin"}
	plainHas     = map[string]string{ // operations and commands that exist
		"Agent":               "Read Update Delete Execute|Suspend Agent|Resume Agent",
		"Credential":          "Create Read Update Delete Execute",
		"Database Connection": "Create Read Update Delete Execute|Copy Database Connection|Test Connection",
		"Task":                "Create Read Update Delete|Launch|Copy Task",
		"Trigger":             "Create Read Update Delete|Trigger Now",
		"Task Instance":       "Read Update Delete|Cancel|Hold",
		"Variable":            "Create Read Update Delete",
		"Bundle":              "Create Read Update Delete|Promote Bundle",
		"Promotion Target":    "Create Read Update Delete Execute|Refresh Target Agents",
		"Webhook":             "Create Read Update Delete|Enable",
		"Virtual Resource":    "Create Read Update Delete Execute|Copy Virtual Resource",
		"Universal Event":     "Create Read Update Delete",
	}
	plainTypes   = []string{"Agent", "Credential", "Database Connection", "Task", "Trigger", "Task Instance", "Variable", "Bundle", "Promotion Target", "Webhook", "Virtual Resource", "Universal Event"}
	plainOps     = []string{"Create", "Read", "Update", "Delete", "Execute"}
	plainVisible = []string{"Agent", "Credential", "Database Connection", "Virtual Resource"}
	plainBundled = []string{"Bundle", "Credential", "Database Connection", "Task", "Trigger", "Variable", "Virtual Resource", "Webhook"}
)

func exists(kind, what string) bool {
	parts := strings.Split(plainHas[kind], "|")
	return slices.Contains(strings.Fields(parts[0]), what) || slices.Contains(parts[1:], what)
}

func (doc plainDoc) roles(user string) []string {
	u := doc.Users[user]
	roles := slices.Clone(u.Roles)
	for _, g := range u.Groups {
		roles = append(roles, doc.Groups[g].Roles...)
	}
	for _, r := range slices.Clone(roles) {
		roles = append(roles, strings.Fields(plainContains[r])...)
	}
	return roles
}

func (doc plainDoc) has(user string, anyOf ...string) bool {
	roles := doc.roles(user)
	return slices.Contains(roles, "ops_admin") || slices.ContainsFunc(anyOf, func(r string) bool { return slices.Contains(roles, r) })
}

func (doc plainDoc) permitted(user, what, kind string, record policy.Record) bool {
	u := doc.Users[user]
	perms := slices.Clone(u.Permissions)
	for _, g := range u.Groups {
		perms = append(perms, doc.Groups[g].Permissions...)
	}
	for _, p := range perms {
		if p.Type != kind || p.Name != "" && !policy.Match(p.Name, record.Name) {
			continue
		}
		if s := p.Services; s != nil {
			member := slices.ContainsFunc(record.Services, func(m string) bool { return slices.Contains(s.Services, m) })
			none := len(record.Services) == 0
			ok := map[string]bool{"any_or_unassigned": true, "specific_or_unassigned": member || none, "specific": member,
				"unassigned": none, "not_specific_or_unassigned": !member, "not_specific": !none && !member}[s.Criterion]
			if !ok {
				continue
			}
		}
		given := append(slices.Clone(p.Ops), p.Commands...)
		switch what {
		case "Read":
			given = append(given, map[bool]string{true: "Read"}[slices.ContainsFunc(given, func(o string) bool { return o == "Create" || o == "Update" || o == "Delete" })])
		case "Update":
			given = append(given, map[bool]string{true: "Update"}[slices.Contains(given, "Create")])
		}
		isOp := slices.Contains(plainOps, what)
		if slices.Contains(given, what) || !isOp && slices.Contains(given, "ALL") {
			return true
		}
	}
	return false
}

func (doc plainDoc) may(user, what, kind string, record policy.Record, parents ...policy.Record) bool {
	props := doc.Properties
	if !exists(kind, what) {
		return false
	}
	if doc.has(user, plainKeepers[kind]) {
		return true
	}
	if what == "Read" {
		if kind == "Webhook" && doc.has(user, "ops_webhook_view") ||
			kind == "Variable" && doc.has(user, "ops_promotion_admin") ||
			slices.Contains(plainVisible, kind) && !props["business_service_visibility_restricted"] ||
			slices.Contains(plainBundled, kind) && doc.has(user, "ops_promotion_admin") && !props["promotion_read_permission_required"] {
			return true
		}
	}
	if kind == "Variable" && !props["enhanced_variable_security"] ||
		kind == "Database Connection" && what == "Execute" && !props["strict_connection_execute_constraints"] {
		return true
	}
	if doc.permitted(user, what, kind, record) {
		return true
	}
	if kind == "Task Instance" && !slices.Contains(plainOps, what) {
		return slices.ContainsFunc(parents, func(p policy.Record) bool { return doc.permitted(user, what, kind, p) })
	}
	return false
}

func (doc plainDoc) actsFor(by, user string) bool {
	_, known := doc.Users[by]
	return known && doc.has(by, "ops_user_impersonate") && (!doc.has(user) || doc.has(by))
}

func (doc plainDoc) allowed(r policy.Request) (bool, []string) {
	user, o := r.Subject.User, r.Object
	if _, known := doc.Users[user]; !known {
		return false, nil
	}
	if by := r.Subject.By; by != "" && by != user && !doc.actsFor(by, user) {
		return false, nil
	}
	switch r.Action {
	case "launch":
		ok := doc.may(user, "Launch", "Task", o.Task)
		if o.Given&policy.MemberTrigger != 0 {
			ok = doc.may(user, "Trigger Now", "Trigger", o.Trigger)
		}
		ok = ok && (o.Given&policy.MemberAgent == 0 || doc.may(user, "Execute", "Agent", o.Agent))
		ok = ok && (o.Given&policy.MemberCredential == 0 || doc.may(user, "Execute", "Credential", o.Credential))
		for _, v := range o.VirtualResources {
			ok = ok && doc.may(user, "Execute", "Virtual Resource", v)
		}
		for _, c := range o.Connections {
			ok = ok && doc.may(user, "Execute", c.Type, c)
		}
		var withheld []string
		for _, v := range o.Variables {
			if ok && !doc.may(user, "Read", "Variable", v) {
				withheld = append(withheld, v.Name)
			}
		}
		return ok, withheld
	case "promote":
		return doc.may(user, "Read", "Bundle", o.Bundle) && doc.may(user, "Promote Bundle", "Bundle", o.Bundle) && doc.may(user, "Execute", "Promotion Target", o.Target), nil
	case "monitor_event":
		return doc.may(user, "Read", "Universal Event", o.Event) && doc.may(user, "Read", o.Record.Type, o.Record), nil
	case "read_forecast":
		return doc.has(user, "ops_forecast_view") || doc.may(user, "Read", "Task", o.Task), nil
	case "impersonate":
		_, known := doc.Users[o.User]
		return known && doc.actsFor(user, o.User), nil
	case "create_report":
		return !doc.Properties["strict_report_create_constraints"] || doc.has(user, "ops_report_admin", "ops_report_group", "ops_report_global"), nil
	case "export_group_permissions":
		return doc.has(user, "ops_imex") && doc.has(user, "ops_user_admin"), nil
	case "read_audit":
		return doc.has(user, "ops_audit_view") || doc.Properties["audit_owner_read_permitted"] && o.Owner == user, nil
	}
	if what, ok := strings.CutPrefix(r.Action, "command:"); ok {
		return doc.may(user, what, o.Type, policy.Record{Name: o.Name, Services: o.Services}, o.Parents...), nil
	}
	if role, ok := strings.CutPrefix(r.Action, "role:"); ok {
		return doc.has(user, role), nil
	}
	return doc.may(user, r.Action, o.Type, policy.Record{Name: o.Name, Services: o.Services}, o.Parents...), nil
}

func pick[T any](rnd *rand.Rand, from ...T) T { return from[rnd.IntN(len(from))] }

func some(rnd *rand.Rand, one int, from ...string) []string {
	list := []string{}
	for _, s := range from {
		if rnd.IntN(one) == 0 {
			list = append(list, s)
		}
	}
	return list
}

var someRoles = []string{"ops_admin", "ops_dba", "ops_promotion_admin", "ops_user_admin", "ops_user_impersonate", "ops_webhook_view",
	"ops_bundle_admin", "ops_report_admin", "ops_imex", "ops_forecast_view", "ops_audit_view", "ops_jcl_edit"}

func randomSource(rnd *rand.Rand) plainUser {
	u := plainUser{Roles: some(rnd, 14, someRoles...), Permissions: []plainPerm{}}
	for range rnd.IntN(12) {
		p := plainPerm{Type: pick(rnd, plainTypes...), Name: pick(rnd, "", "*", "a", "a*", "?", "*b"), Ops: []string{}, Commands: []string{}}
		parts := strings.Split(plainHas[p.Type], "|")
		p.Ops = some(rnd, 3, strings.Fields(parts[0])...)
		p.Commands = some(rnd, 2, append(parts[1:], "ALL")...)
		if rnd.IntN(2) == 0 {
			p.Services = &plainServices{pick(rnd, "any_or_unassigned", "specific_or_unassigned", "specific", "unassigned", "not_specific_or_unassigned", "not_specific"), []string{pick(rnd, "F", "H")}}
		}
		u.Permissions = append(u.Permissions, p)
	}
	return u
}

func randomDoc(rnd *rand.Rand) plainDoc {
	doc := plainDoc{Model: "stonebranch", Properties: map[string]bool{}, Users: map[string]plainUser{}, Groups: map[string]plainUser{"G": randomSource(rnd), "H": randomSource(rnd)}}
	for _, p := range []string{"business_service_visibility_restricted", "strict_connection_execute_constraints", "audit_owner_read_permitted",
		"strict_report_create_constraints", "promotion_read_permission_required", "enhanced_variable_security"} {
		doc.Properties[p] = rnd.IntN(3) > 0
	}
	for _, name := range []string{"u1", "u2", "u3"} {
		u := randomSource(rnd)
		u.Groups = some(rnd, 3, "G", "H")
		doc.Users[name] = u
	}
	return doc
}

func randomRecord(rnd *rand.Rand) policy.Record {
	r := policy.Record{Name: pick(rnd, "a", "b", "ab", "bc")}
	if s := some(rnd, 3, "F", "H"); len(s) > 0 {
		r.Services = s
	}
	return r
}

func randomRequest(rnd *rand.Rand) policy.Request {
	r := policy.Request{Subject: policy.Subject{User: pick(rnd, "u1", "u2", "u3", "u1", "u2", "u3", "stranger")}}
	if rnd.IntN(6) == 0 {
		r.Subject.By = pick(rnd, "u1", "u2", "u3", "stranger")
	}
	o := &r.Object
	record := func(m policy.Members, at *policy.Record) {
		*at = randomRecord(rnd)
		o.Given |= m
	}
	r.Action = pick(rnd, "op", "op", "op", "command", "command", "launch", "launch", "launch", "promote", "monitor_event", "read_forecast", "impersonate", "create_report", "export_group_permissions", "read_audit", "role")
	switch r.Action {
	case "op", "command":
		o.Type = pick(rnd, plainTypes...)
		one := randomRecord(rnd)
		o.Name, o.Services = one.Name, one.Services
		o.Given = policy.MemberType | policy.MemberName | policy.MemberServices
		parts := strings.Split(plainHas[o.Type], "|")
		if r.Action == "op" || len(parts) == 1 {
			r.Action = pick(rnd, plainOps...)
			break
		}
		r.Action = "command:" + pick(rnd, parts[1:]...)
		if rnd.IntN(2) == 0 {
			o.Given |= policy.MemberParents
			o.Parents = []policy.Record{randomRecord(rnd), randomRecord(rnd)}
		}
	case "launch":
		record(policy.MemberTask, &o.Task)
		if rnd.IntN(3) == 0 {
			record(policy.MemberTrigger, &o.Trigger)
		}
		if rnd.IntN(2) == 0 {
			record(policy.MemberAgent, &o.Agent)
		}
		if rnd.IntN(2) == 0 {
			record(policy.MemberCredential, &o.Credential)
		}
		if rnd.IntN(3) == 0 {
			o.Given |= policy.MemberVirtualResources | policy.MemberConnections
			o.VirtualResources = []policy.Record{randomRecord(rnd)}
			c := randomRecord(rnd)
			c.Type = "Database Connection"
			o.Connections = []policy.Record{c}
		}
		if rnd.IntN(2) == 0 {
			o.Given |= policy.MemberVariables
			o.Variables = []policy.Record{{Name: "a"}, {Name: "bc", Services: []string{"F"}}}
		}
	case "promote":
		record(policy.MemberBundle, &o.Bundle)
		record(policy.MemberTarget, &o.Target)
	case "monitor_event":
		record(policy.MemberEvent, &o.Event)
		record(policy.MemberRecord, &o.Record)
		o.Record.Type = pick(rnd, plainTypes...)
	case "read_forecast":
		record(policy.MemberTask, &o.Task)
	case "impersonate":
		o.Given, o.User = policy.MemberUser, pick(rnd, "u1", "u2", "stranger")
	case "read_audit":
		o.Given, o.Owner = policy.MemberOwner, pick(rnd, "u1", "u2")
	case "role":
		r.Action = "role:" + pick(rnd, someRoles...)
	}
	return r
}

// soak returns how many random documents to try, and the dice: a fixed slice
// in an ordinary run, a million requests of any seed in "make soak".
func soak(t *testing.T, usual int) (documents int, rnd *rand.Rand) {
	t.Helper()
	if os.Getenv("BATCHWARDEN_SOAK") == "" {
		return usual, rand.New(rand.NewPCG(1, 2))
	}
	seed, err := strconv.ParseUint(os.Getenv("BATCHWARDEN_SEED"), 10, 64)
	if err != nil {
		t.Fatalf("BATCHWARDEN_SEED: %v", err)
	}
	return 25_000, rand.New(rand.NewPCG(seed, seed))
}

// TestSoakAgainstPlainEvaluator compares the compiled engine with the plain
// one on random documents, and applies what Explain proposes for each denial.
func TestSoakAgainstPlainEvaluator(t *testing.T) {
	documents, rnd := soak(t, 250)
	allowed, fixed, unfixable := 0, 0, 0
	for range documents {
		doc := randomDoc(rnd)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		p, err := stonebranch.Parse("d", text)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		for range 40 {
			r := randomRequest(rnd)
			d := p.Decide(&r)
			want, withheld := doc.allowed(r)
			q, _ := json.Marshal(r)
			if d.Allowed != want || !slices.Equal(d.Withheld, withheld) {
				t.Fatalf("%s\n%s\ngot %v by %s, withheld %q; want %v, %q", text, q, d.Allowed, d.Rule, d.Withheld, want, withheld)
			}
			e, trace := p.Explain(&r)
			if e.Allowed != d.Allowed || e.Rule != d.Rule || e.Reason != d.Reason || (trace.Fix == nil) != d.Allowed {
				t.Fatalf("%s\n%s\n%+v, explained %+v", text, q, d, trace)
			}
			switch {
			case d.Allowed:
				allowed++
			case trace.Fix.Place == "":
				unfixable++
			default:
				fixed++
				checkFix(t, doc, r, trace)
			}
		}
	}
	t.Logf("%d allowed, %d denied with a single grant that helps, %d without", allowed, fixed, unfixable)
	if allowed < 1000 || fixed < 1000 || unfixable < 100 {
		t.Error("the random documents no longer reach all outcomes")
	}
}

// checkFix adds what the trace proposes and asks the plain evaluator.
func checkFix(t *testing.T, doc plainDoc, r policy.Request, trace *policy.Trace) {
	t.Helper()
	steps := strings.Split(trace.Fix.Place, ".")
	u := doc.Users[steps[1]]
	if steps[2] == "roles" {
		var role string
		if err := json.Unmarshal(trace.Fix.Value, &role); err != nil {
			t.Fatal(err)
		}
		u.Roles = append(slices.Clone(u.Roles), role)
	} else if trace.Fix.Value != nil {
		var p plainPerm
		if err := json.Unmarshal(trace.Fix.Value, &p); err != nil {
			t.Fatal(err)
		}
		u.Permissions = append(slices.Clone(u.Permissions), p)
	}
	fixed := doc
	fixed.Users = map[string]plainUser{}
	for name, old := range doc.Users {
		fixed.Users[name] = old
	}
	fixed.Users[steps[1]] = u
	if ok, _ := fixed.allowed(r); !ok {
		q, _ := json.Marshal(r)
		t.Fatalf("%s\nstill denied:\n%s", q, trace)
	}
}
