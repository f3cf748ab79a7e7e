package main

import (
	"fmt"
	"strings"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
)

// casbinEngine has one policy for each row.
//
// Casbin has no AND across policies, and so each group is asked for on its
// own, and all must allow; a NOT row is a policy with the effect deny for
// whatever group. The groups of few rows are asked first; a denial ends the
// asking.
//
// The filters are matcher functions. They know only the forms that the
// workload has, so that they cost little; the matcher begins with the column
// that tells most and leaves out those that are * in every row.
type casbinEngine []casbinCall

type casbinCall struct {
	enforcer *casbin.Enforcer
	group    string
}

const casbinModel = `
[request_definition]
r = group, type, name, host, login, right
[policy_definition]
p = group, type, name, host, login, rights, eft
[policy_effect]
e = %s
[matchers]
m = %s && filter(r.type, p.type) && has(p.rights, r.right)
`

// The effects, as Casbin knows them.
const (
	someAllow       = "some(where (p.eft == allow))"
	noDeny          = "!some(where (p.eft == deny))"
	someAllowNoDeny = someAllow + " && " + noDeny
)

func newCasbin(rows []row) (engine, error) {
	e, err := enforcer(rows, someAllowNoDeny, columns(rows)+` && (r.group == p.group || p.group == "NOT")`)
	return casbinEngine{{e, "2"}, {e, "1"}}, err
}

// newCasbinTuned does by hand what Casbin does not do by itself: an enforcer
// for each group and one for the NOT rows, with effects by which Casbin stops
// at the first row that decides.
func newCasbinTuned(rows []row) (engine, error) {
	one, two, nots := byGroup(rows)
	matcher := columns(rows)
	var c casbinEngine
	for _, part := range []struct {
		rows          []row
		effect, group string
	}{{nots, noDeny, "NOT"}, {two, someAllow, "2"}, {one, someAllow, "1"}} {
		e, err := enforcer(part.rows, part.effect, matcher)
		if err != nil {
			return nil, err
		}
		c = append(c, casbinCall{e, part.group})
	}
	return c, nil
}

// columns is the part of the matcher for the columns that are not * everywhere.
func columns(rows []row) string {
	restricts := map[string]bool{}
	for _, r := range rows {
		restricts["name"] = restricts["name"] || r.name != "*"
		restricts["host"] = restricts["host"] || r.host != "*"
		restricts["login"] = restricts["login"] || r.login != "*"
	}
	var parts []string
	for _, name := range []string{"name", "host", "login"} {
		if restricts[name] {
			parts = append(parts, fmt.Sprintf("filter(r.%s, p.%[1]s)", name))
		}
	}
	return strings.Join(parts, " && ")
}

func enforcer(rows []row, effect, matcher string) (*casbin.Enforcer, error) {
	m, err := model.NewModelFromString(fmt.Sprintf(casbinModel, effect, matcher))
	if err != nil {
		return nil, err
	}
	e, err := casbin.NewEnforcer(m, false)
	if err != nil {
		return nil, err
	}
	e.AddFunction("filter", func(args ...any) (any, error) {
		text, filter := args[0].(string), args[1].(string)
		switch {
		case filter == "*":
			return true, nil
		case filter[len(filter)-1] == '*':
			return strings.HasPrefix(text, filter[:len(filter)-1]), nil
		case filter[0] == '*':
			return strings.HasSuffix(text, filter[1:]), nil
		}
		return text == filter, nil
	})
	e.AddFunction("has", func(args ...any) (any, error) {
		return strings.Contains(args[0].(string), args[1].(string)), nil
	})
	policies := make([][]string, 0, len(rows))
	seen := map[row]bool{}
	for _, r := range rows {
		if !seen[r] { // Casbin refuses two policies that are the same
			seen[r] = true
			eft := "allow"
			if r.group == "NOT" {
				eft = "deny"
			}
			policies = append(policies, []string{r.group, r.kind, r.name, r.host, r.login, r.rights, eft})
		}
	}
	if ok, err := e.AddPolicies(policies); err != nil || !ok {
		return nil, fmt.Errorf("casbin: adding %d policies: %v, %w", len(policies), ok, err)
	}
	return e, nil
}

func (c casbinEngine) ask(questions []question) (func(i int) (bool, error), error) {
	asked := make([][]any, len(questions))
	for i, q := range questions {
		asked[i] = []any{"", q.kind, q.name, q.host, q.login, q.right}
	}
	return func(i int) (bool, error) {
		for _, call := range c {
			asked[i][0] = call.group
			ok, err := call.enforcer.Enforce(asked[i]...)
			if err != nil || !ok {
				return false, err
			}
		}
		return true, nil
	}, nil
}
