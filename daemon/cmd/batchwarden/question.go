package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// question is what the flags of run, authorize, explain and retrieve say of who asks, where and about what.
type question struct {
	realm   string
	subject string
	roles   []string
	by      string
	objects []string
	as      string
}

func (q *question) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&q.realm, "realm", "", "the controller's world that is asked about, as configured under realms (required)")
	q.subjectFlags(cmd)
}

// subjectFlags are those that what is done with a job has in common with the rest.
func (q *question) subjectFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.subject, "subject", "", "the controller's user on whose behalf this is (default: your own user name)")
	f.StringArrayVar(&q.roles, "subject-role", nil, "a role that the subject has; may be given again")
	f.StringVar(&q.by, "by", "", "who acts for the subject")
	f.StringArrayVar(&q.objects, "object", nil, "a member `K=V` of the object; V is a text unless it is a JSON number, list or object; may be given again")
}

// launchFlags are those that run, authorize and explain have in common.
func (q *question) launchFlags(cmd *cobra.Command) {
	q.flags(cmd)
	cmd.Flags().StringVar(&q.as, "as", "", "the batch user to run as")
}

// check says what the flags lack before anybody is asked.
func (q *question) check() error {
	if q.realm == "" {
		return usage("no realm is given; name one with --realm (batchwarden whoami lists them)")
	}
	_, err := q.object()
	return err
}

// object makes the object of its members, nil for none.
func (q *question) object() (json.RawMessage, error) {
	if len(q.objects) == 0 {
		return nil, nil
	}
	members := make(map[string]json.RawMessage, len(q.objects))
	for _, o := range q.objects {
		name, value, ok := strings.Cut(o, "=")
		if !ok || name == "" {
			return nil, usage("--object %q is not a member; write it as name=value", o)
		}
		if _, twice := members[name]; twice {
			return nil, usage("--object %s is given twice; for a list write %s='[\"a\",\"b\"]'", name, name)
		}
		members[name] = asJSON(value)
	}
	text, err := json.Marshal(members)
	if err != nil {
		return nil, usage("--object: %v", err)
	}
	return text, nil
}

// asJSON takes a value that is a JSON list, object, number or quoted text as that, and all else as a text.
func asJSON(value string) json.RawMessage {
	if value != "" && strings.ContainsRune(`[{"-0123456789`, rune(value[0])) && json.Valid([]byte(value)) {
		return json.RawMessage(value)
	}
	text, err := json.Marshal(value)
	if err != nil {
		panic("batchwarden: a string does not marshal: " + err.Error())
	}
	return text
}

// asked is whom the question is about. Without --subject it is the caller, as the service itself sees him: what the
// environment says of him proves nothing.
func (q *question) asked(ctx context.Context, c *client.Client) (wire.Subject, error) {
	s := wire.Subject{User: q.subject, Roles: q.roles, By: q.by}
	if s.User != "" {
		return s, nil
	}
	w, err := c.Whoami(ctx)
	if err != nil {
		return s, err
	}
	if w.Peer.User == "" {
		return s, usage("your uid %d has no user name on this host; name the subject with --subject", w.Peer.UID)
	}
	s.User = w.Peer.User
	return s, nil
}

// authorizeCommand takes run's other flags too, and the command, so that a run line can be asked about by changing one
// word.
func (a *app) authorizeCommand() *cobra.Command {
	var q question
	var action string
	var l launch
	cmd := &cobra.Command{
		Use:   "authorize --realm R [--subject U] [--as BATCH_USER] [--object K=V]... [-- COMMAND [ARG...]]",
		Short: "Ask whether it is allowed; exit code 0 yes, 1 no",
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.decide(ctx, c, &q, action, false)
		}),
	}
	q.launchFlags(cmd)
	cmd.Flags().StringVar(&action, "action", "", "what is asked for, in the model's words (default: launch)")
	l.flags(cmd)
	hide(cmd, "id", "dir", "env", "timeout", "stdio", "detach", "dry-run")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// decide asks the policy, and shows what it says.
func (a *app) decide(ctx context.Context, c *client.Client, q *question, action string, explain bool) error {
	if err := q.check(); err != nil {
		return err
	}
	subject, err := q.asked(ctx, c)
	if err != nil {
		return err
	}
	object, err := q.object()
	if err != nil {
		return err
	}
	d, err := c.Authorize(ctx, wire.Authorize{Realm: q.realm, Subject: subject, Action: action, Object: object, BatchUser: q.as}, explain)
	if err != nil {
		return err
	}
	text := decisionText(d)
	if explain && action == "" && q.as != "" {
		text += "\nOnly the policy was asked. With the command after -- the whole launch is explained.\n"
	}
	return a.answer(d, text, d.Allowed)
}

// decisionText is the trace, which ends with the rule and its reason, where there is one, and the verdict.
func decisionText(d *wire.Decision) string {
	var b strings.Builder
	if d.TraceText != "" {
		b.WriteString(clean(strings.TrimRight(d.TraceText, "\n")) + "\n\n")
	}
	verdict := "denied"
	if d.Allowed {
		verdict = "allowed"
	}
	b.WriteString(verdict)
	if d.Code != "" {
		b.WriteString(" (" + cell(d.Code) + ")")
	}
	if d.TraceText == "" && d.Rule != "" {
		b.WriteString(" by " + cell(d.Rule))
	}
	if d.TraceText == "" && d.Reason != "" {
		b.WriteString(": " + cell(d.Reason))
	}
	fmt.Fprintf(&b, "\ndecision %s\n", cell(d.DecisionID))
	if len(d.Withheld) > 0 {
		fmt.Fprintf(&b, "withheld: %s\n", cell(strings.Join(d.Withheld, ", ")))
	}
	return b.String()
}
