package stonebranch

import (
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

// Decide answers r. It allocates only for a request that is not valid, for a
// launch that the security constraints prohibit (ST17: the description
// names the record) and for withheld variables (ST20).
func (p *Policy) Decide(r *policy.Request) policy.Decision { return p.decide(r, nil) }

// decide is Decide, and Explain when log is not nil: then all checks of a
// request are made, also behind the first that fails.
func (p *Policy) decide(r *policy.Request, log *journal) policy.Decision {
	if err := check(r); err != nil {
		return policy.Refuse(err)
	}
	s := &r.Subject
	u := p.user(s.User)
	if u == nil {
		return policy.Deny("ST25", "the document does not know the user")
	}
	if s.By != "" && s.By != s.User {
		if d, ok := p.impersonates(s.By, u, log); !ok {
			return d
		}
	}
	e := eval{p: p, r: r, u: u, log: log}
	switch r.Action {
	case "Create", "Read", "Update", "Delete", "Execute":
		return e.operation()
	case "launch":
		return e.launch()
	case "promote":
		return e.promote()
	case "read_audit":
		return e.audit()
	case "export_group_permissions", "import_group_permissions":
		return e.groups()
	case "create_report":
		return e.report()
	case "create_dashboard":
		return e.dashboard()
	case "monitor_event":
		return e.monitor()
	case "read_forecast":
		return e.forecast()
	case "impersonate":
		return e.impersonate()
	}
	if strings.HasPrefix(r.Action, commandPrefix) {
		return e.command()
	}
	return e.role()
}

const (
	commandPrefix = "command:"
	rolePrefix    = "role:"
)

// check finds what makes r no request of this model.
func check(r *policy.Request) *policy.InvalidError {
	if len(r.Subject.Roles) > 0 {
		return &policy.InvalidError{Field: "subject.roles", Text: "is not a member for stonebranch"}
	}
	var listed, required policy.Members
	switch r.Action {
	case "launch":
		listed = policy.MemberTask | policy.MemberTrigger | policy.MemberAgent | policy.MemberCredential |
			policy.MemberScripts | policy.MemberVirtualResources | policy.MemberConnections | policy.MemberVariables
		if required = policy.MemberTask; r.Object.Given&policy.MemberTrigger != 0 {
			required = policy.MemberTrigger
		}
	case "promote":
		required = policy.MemberBundle | policy.MemberTarget
	case "monitor_event":
		required = policy.MemberEvent | policy.MemberRecord
	case "impersonate":
		required = policy.MemberUser
	case "read_audit":
		listed = policy.MemberOwner
	case "read_forecast":
		listed = policy.MemberTask
	case "export_group_permissions", "import_group_permissions", "create_report", "create_dashboard":
	default:
		switch {
		case opOf(r.Action) != 0, strings.HasPrefix(r.Action, commandPrefix):
			listed = policy.MemberName | policy.MemberServices | policy.MemberParents
			required = policy.MemberType
		case strings.HasPrefix(r.Action, rolePrefix):
		default:
			return &policy.InvalidError{Field: "action", Text: "is not an action of stonebranch"}
		}
	}
	return r.Object.Only(r.Action, listed|required, required)
}

// An eval is one decision in progress.
type eval struct {
	p   *Policy
	r   *policy.Request
	u   *user
	log *journal
}

// A want is one operation or one command on records of a kind.
type want struct {
	kind    kind
	op      ops
	command uint32
}

func (w want) exists() bool {
	return w.op&types[w.kind].ops != 0 || w.command&w.kind.every() != 0
}

// may says by which rule the user may do w to the record; "" is not at all.
// Parents are those of a task instance, for commands (ST13).
func (e *eval) may(w want, record *policy.Record, parents []policy.Record) string {
	rule := e.standing(w)
	if rule == "" && w.exists() {
		if rule = e.granted(w, record); rule == "" && w.kind == taskInstance && w.command != 0 {
			for i := range parents {
				if e.granted(w, &parents[i]) != "" {
					rule = "ST13"
					break
				}
			}
		}
	}
	if e.log != nil {
		e.log.check(w, record, parents, rule)
	}
	return rule
}

// standing says by which rule the user may do w to every record of its kind,
// by his roles or because the properties leave it open.
func (e *eval) standing(w want) string {
	props := &e.p.properties
	switch k := w.kind; {
	case !w.exists():
		return "" // ST9: for nobody
	case e.u.roles&opsAdmin != 0:
		return "ST1"
	case e.u.roles&k.keeper() != 0, k == webhook && w.op == opRead && e.u.roles&opsWebhookView != 0:
		return "ST4"
	case k == variable && !props.StrictVariables:
		return "ST15g"
	case k == variable && w.op == opRead && e.u.roles&opsPromotionAdmin != 0:
		return "ST20"
	case w.op == opRead && !props.Restricted && k.isVisible():
		return "ST15a"
	case w.op == opExecute && !props.StrictConnections && k.isConnection():
		return "ST15b"
	case w.op == opRead && !props.PromotionRead && k.isBundled() && e.u.roles&opsPromotionAdmin != 0:
		return "ST15f"
	}
	return ""
}

func (e *eval) granted(w want, record *policy.Record) string {
	for _, s := range e.u.from {
		list := s.permissions[w.kind]
		for i := range list {
			if p := &list[i]; (p.ops&w.op != 0 || p.commands&w.command != 0) && p.matches(record) {
				return "ST6"
			}
		}
	}
	return ""
}

func (e *eval) allow(rule, reason string) policy.Decision { return policy.Allow(e.r, rule, reason) }

// operation: one operation on one record (ST6 to ST11).
func (e *eval) operation() policy.Decision {
	return e.one(func(k kind) want { return want{kind: k, op: opOf(e.r.Action)} }, "ST9", "the type does not have the operation")
}

// command: one command on one record (ST12, ST13).
func (e *eval) command() policy.Decision {
	name := strings.TrimPrefix(e.r.Action, commandPrefix)
	return e.one(func(k kind) want { return want{kind: k, command: k.command(name)} }, "ST12", "the type does not have the command")
}

func (e *eval) one(ask func(kind) want, rule, reason string) policy.Decision {
	o := &e.r.Object
	k, ok := kindOf(o.Type)
	if !ok {
		return policy.Deny("ST7", "there is no such type")
	}
	w := ask(k)
	if !w.exists() {
		return policy.Deny(rule, reason)
	}
	record := policy.Record{Name: o.Name, Services: o.Services}
	if rule := e.may(w, &record, o.Parents); rule != "" {
		return e.allow(rule, "the user has the right")
	}
	return policy.Deny("ST6", "no role or permission of the user grants it")
}

// role: whether the user has a role (ST1 to ST3).
func (e *eval) role() policy.Decision {
	want := roleOf(strings.TrimPrefix(e.r.Action, rolePrefix))
	return e.anyOf(want, "ST2")
}

// anyOf asks for one of the roles.
func (e *eval) anyOf(want roles, rule string) policy.Decision {
	if want == 0 {
		return policy.Deny("ST3", "there is no such role")
	}
	if e.log != nil {
		e.log.roles(want, e.u)
	}
	if e.u.roles&want != 0 {
		return e.allow(rule, "the user has the role")
	}
	return policy.Deny(rule, "the user does not have the role")
}

// launch: everything that a launch touches (ST16).
func (e *eval) launch() policy.Decision {
	o := &e.r.Object
	first := policy.Decision{}
	fail := func(text string) bool { // reports whether to go on
		if first.Code == "" {
			first = policy.Deny("ST16", text)
		}
		return e.log != nil
	}
	w, record := want{kind: task, command: task.command(launchTask)}, &o.Task
	if o.Given&policy.MemberTrigger != 0 {
		w, record = want{kind: trigger, command: trigger.command(triggerNow)}, &o.Trigger
	}
	if e.may(w, record, nil) == "" && !fail("the user may not launch the task or trigger") {
		return first
	}
	execute := func(k kind, records []policy.Record, kept string) bool {
		for i := range records {
			if e.may(want{kind: k, op: opExecute}, &records[i], nil) == "" && !fail(prohibited(kept, records[i].Name)) {
				return false
			}
		}
		return true
	}
	one := func(m policy.Members, r *policy.Record) []policy.Record {
		if o.Given&m == 0 {
			return nil
		}
		return []policy.Record{*r}
	}
	if !execute(agent, one(policy.MemberAgent, &o.Agent), "Execution on agent") ||
		!execute(credential, one(policy.MemberCredential, &o.Credential), "Execution with credentials") || // ST17
		!execute(script, o.Scripts, "Execution of script") ||
		!execute(virtualResource, o.VirtualResources, "Execution for virtual resource") { // ST17
		return first
	}
	for i := range o.Connections {
		c := &o.Connections[i]
		k, ok := kindOf(c.Type)
		if ok = ok && k.isConnection(); ok {
			ok = e.may(want{kind: k, op: opExecute}, c, nil) != ""
		}
		if !ok && !fail(prohibited("Execution with connection", c.Name)) {
			return first
		}
	}
	if first.Code != "" {
		return first
	}
	d := e.allow("ST16", "the user may use everything that the launch needs")
	for i := range o.Variables { // ST20
		if v := &o.Variables[i]; e.may(want{kind: variable, op: opRead}, v, nil) == "" && !slices.Contains(d.Withheld, v.Name) {
			d.Withheld = append(d.Withheld, v.Name)
		}
	}
	return d
}

// prohibited is the description of a Start Failure (ST17).
func prohibited(what, name string) string {
	return what + ` "` + name + `" prohibited due to security constraints.`
}

// promote: a bundle to a target (ST22).
func (e *eval) promote() policy.Decision {
	o := &e.r.Object
	return e.all("ST22",
		need{want{kind: bundle, op: opRead}, &o.Bundle},
		need{want{kind: bundle, command: bundle.command(promoteBundle)}, &o.Bundle},
		need{want{kind: promotionTarget, op: opExecute}, &o.Target})
}

// monitor: a predefined event, with the record behind it (ST23).
func (e *eval) monitor() policy.Decision {
	o := &e.r.Object
	k, ok := kindOf(o.Record.Type)
	if !ok {
		return policy.Deny("ST7", "there is no such type")
	}
	return e.all("ST23",
		need{want{kind: universalEvent, op: opRead}, &o.Event},
		need{want{kind: k, op: opRead}, &o.Record})
}

type need struct {
	want   want
	record *policy.Record
}

func (e *eval) all(rule string, needs ...need) policy.Decision {
	ok := true
	for _, n := range needs {
		if e.may(n.want, n.record, nil) == "" {
			ok = false
			if e.log == nil {
				break
			}
		}
	}
	if !ok {
		return policy.Deny(rule, "the user lacks one of the rights that it needs")
	}
	return e.allow(rule, "the user has all rights that it needs")
}

// audit: reading audit records (ST15c).
func (e *eval) audit() policy.Decision {
	o := &e.r.Object
	if e.p.properties.OwnAudit && o.Given&policy.MemberOwner != 0 && o.Owner == e.r.Subject.User {
		return e.allow("ST15c", "users see their own audits")
	}
	return e.anyOf(opsAdmin|opsAuditView, "ST15c")
}

// groups: importing or exporting the permissions of groups (ST24).
func (e *eval) groups() policy.Decision {
	imex, admin := e.anyOf(opsImex, "ST24"), e.anyOf(opsUserAdmin, "ST24")
	if !imex.Allowed {
		return imex
	}
	return admin
}

func (e *eval) report() policy.Decision { // ST15d
	if !e.p.properties.StrictReports {
		return e.allow("ST15d", "everybody may create reports")
	}
	return e.anyOf(opsReportAdmin|opsReportGroup|opsReportGlobal, "ST15d")
}

func (e *eval) dashboard() policy.Decision { // ST15e
	if !e.p.properties.StrictDashboards {
		return e.allow("ST15e", "everybody may create dashboards")
	}
	return e.anyOf(opsReportAdmin|opsDashboardGroup|opsDashboardGlobal, "ST15e")
}

// forecast: the forecast of a task (ST26).
func (e *eval) forecast() policy.Decision {
	o := &e.r.Object
	d := e.anyOf(opsForecastView, "ST26")
	if !d.Allowed && o.Given&policy.MemberTask != 0 && e.may(want{kind: task, op: opRead}, &o.Task, nil) != "" {
		return e.allow("ST26", "the user may read the task")
	}
	return d
}

// impersonate: acting for another user (ST5).
func (e *eval) impersonate() policy.Decision {
	other := e.p.user(e.r.Object.User)
	if other == nil {
		return policy.Deny("ST25", "the document does not know the other user")
	}
	if d, ok := e.p.impersonates(e.r.Subject.User, other, e.log); !ok {
		return d
	}
	return e.allow("ST5", "the user may act for the other")
}

// impersonates reports whether by may act for u, else why not (ST5).
func (p *Policy) impersonates(by string, u *user, log *journal) (policy.Decision, bool) {
	actor := p.user(by)
	if actor == nil {
		return policy.Deny("ST25", "the document does not know who acts for the user"), false
	}
	if log != nil {
		log.actor(by, actor, u)
	}
	if actor.roles&opsUserImpersonate == 0 {
		return policy.Deny("ST5", "who acts for the user does not have ops_user_impersonate"), false
	}
	if u.roles&opsAdmin != 0 && actor.roles&opsAdmin == 0 {
		return policy.Deny("ST5", "only an ops_admin may act for an ops_admin"), false
	}
	return policy.Decision{}, true
}
