package main

import (
	"cmp"
	"fmt"
	"strings"

	"batchwarden/ipc/wire"
)

// stepNames say in words what the steps of a launch are about.
var stepNames = map[string]string{
	"batch_user": "batch user",
	"dir":        "directory",
	"document":   "policy document",
	"pam":        "PAM",
}

func stepName(step string) string {
	if name, ok := stepNames[step]; ok {
		return name
	}
	return step
}

// mark is how a step went: ok, NO, or not looked at.
func mark(c *wire.Check) string {
	switch {
	case !c.OK:
		return "NO"
	case c.Unseen:
		return "--"
	}
	return "ok"
}

// text is the screen of explain: the verdict, what would change it, the steps, the policy's trace.
func (x *explained) text(body *wire.Launch) string {
	var b strings.Builder
	first, others := refusals(x.DryRun)
	switch {
	case first != nil:
		fmt.Fprintf(&b, "NO: the job would not be started: %s\n", cell(first.Code))
		fmt.Fprintf(&b, "    %s\n", cell(cmp.Or(first.Detail, "no reason is known")))
	case unseen(x.DryRun) > 0:
		b.WriteString("YES: the job would be started, as far as could be looked at.\n")
	default:
		b.WriteString("YES: the job would be started.\n")
	}
	if x.Remedy != nil {
		b.WriteString("\n" + x.Remedy.text())
		if others > 0 {
			fmt.Fprintf(&b, "Then there is more to change: %s below would refuse it too.\n", counted(others, "other step"))
		}
	}
	b.WriteString("\n" + x.facts(body) + "\n")
	var p page
	for i := range x.Checks {
		c := &x.Checks[i]
		detail := c.Detail
		if !c.OK {
			detail = c.Code + named(": ", detail)
		}
		p.row("  "+mark(c), stepName(c.Step), detail)
	}
	b.WriteString(p.String())
	if e := x.Explained; e != nil && e.Decision != nil && e.Decision.TraceText != "" {
		b.WriteString("\nThe policy of realm " + cell(body.Realm) + ", * where a line counted:\n")
		b.WriteString(indented(clean(strings.TrimRight(e.Decision.TraceText, "\n"))))
	}
	if x.DecisionID != "" {
		fmt.Fprintf(&b, "\ndecision %s\n", cell(x.DecisionID))
	}
	return b.String()
}

// facts are who asks, for whom, and what it is about.
func (x *explained) facts(body *wire.Launch) string {
	var p page
	p.row("Launch", fmt.Sprintf("%s as %s for %s in realm %s", runs(body), body.BatchUser, subject(body.Subject), body.Realm))
	e := x.Explained
	if e == nil {
		return p.String()
	}
	who := fmt.Sprintf("uid %d", e.Peer.UID)
	if e.Peer.User != "" {
		who = fmt.Sprintf("%s (uid %d)", e.Peer.User, e.Peer.UID)
	}
	if e.Operator {
		who += ", an operator"
	}
	attested := ", not attested: the launcher does not answer"
	if e.Peer.Attested {
		attested = ", attested" + named(" as ", e.Peer.Exe) + named(" of unit ", e.Peer.Unit)
	}
	p.row("Asked by", who+attested)
	client := "none: no client entry is this caller's"
	if e.Client != "" {
		client = e.Client + named(", user ", e.Account) + named(", ", e.Entry)
		if e.Supposed {
			client = "as if " + client
		}
	}
	p.row("Client", client)
	return p.String()
}

// runs says what a launch would run, its program without its arguments: those often hold what not everybody should see.
func runs(body *wire.Launch) string {
	switch {
	case body.CommandLine != "":
		return "a command line"
	case body.Script != nil:
		return "a script"
	case len(body.Command) > 0:
		return body.Command[0]
	}
	return "nothing"
}

// refusals are the first step that is not passed, nil when all are, and how many more there are.
func refusals(d *wire.DryRun) (first *wire.Check, others int) {
	for i := range d.Checks {
		switch {
		case d.Checks[i].OK:
		case first == nil:
			first = &d.Checks[i]
		default:
			others++
		}
	}
	return first, others
}

func unseen(d *wire.DryRun) (n int) {
	for i := range d.Checks {
		if d.Checks[i].Unseen {
			n++
		}
	}
	return n
}

func indented(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") + "\n" }
