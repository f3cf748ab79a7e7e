package main

import (
	"fmt"
	"iter"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
)

// cedarEngine has one policy for each row.
//
// Cedar allows what some permit allows and no forbid denies: that is one group
// (OR) with the NOT rows. There is no AND across permits, and so each group is
// asked for on its own, as the principal, and all must allow. The groups of
// few rows are asked first; a denial ends the asking.
//
// The object's type is the type of the resource and a right is an action, both
// in the scope, as Cedar's documentation has it: "action in [...]". Filters are
// == or like, and a filter * is left out. Requests and their entities are made
// before the clock runs.
type cedarEngine []cedarCall

type cedarCall struct {
	set   cedarSet
	group string
}

// A cedarSet is a slice because that is what Authorize goes over fastest.
type cedarSet []cedarPolicy

type cedarPolicy struct {
	id     cedar.PolicyID
	policy *cedar.Policy
}

func (s cedarSet) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, p := range s {
			if !yield(p.id, p.policy) {
				return
			}
		}
	}
}

func newCedar(rows []row) (engine, error) {
	set := cedarSet(nil).with(rows, false)
	return cedarEngine{{set, "2"}, {set, "1"}}, nil
}

// newCedarTuned does by hand what Cedar does not do by itself. There is a set
// for each group, with the NOT rows in the one that is asked first, and the
// right is a text in the context that is looked at last: for "action in" this
// version of cedar-go makes a set again for each policy that it looks at.
func newCedarTuned(rows []row) (engine, error) {
	one, two, nots := byGroup(rows)
	return cedarEngine{{cedarSet(nil).with(nots, true).with(two, true), "2"}, {cedarSet(nil).with(one, true), "1"}}, nil
}

func (s cedarSet) with(rows []row, tuned bool) cedarSet {
	for _, r := range rows {
		p := ast.Permit().PrincipalEq(types.NewEntityUID("Group", types.String(r.group)))
		if r.group == "NOT" {
			p = ast.Forbid()
		}
		if !tuned {
			var actions []types.EntityUID
			for _, right := range strings.Split(r.rights, "") {
				actions = append(actions, types.NewEntityUID("Action", types.String(right)))
			}
			p.ActionInSet(actions...)
		}
		if r.kind != "*" {
			p.ResourceIs(types.EntityType(r.kind))
		}
		for _, c := range []struct {
			attribute types.String
			filter    string
		}{{"name", r.name}, {"host", r.host}, {"login", r.login}} {
			if c.filter == "*" {
				continue
			}
			value := ast.Resource().Access(c.attribute)
			if strings.Contains(c.filter, "*") {
				p.When(value.Like(pattern(c.filter)))
			} else {
				p.When(value.Equal(ast.String(types.String(c.filter))))
			}
		}
		if tuned {
			var rights []types.Value
			for _, right := range strings.Split(r.rights, "") {
				rights = append(rights, types.String(right))
			}
			p.When(ast.Value(types.NewSet(rights...)).Contains(ast.Context().Access("right")))
		}
		s = append(s, cedarPolicy{cedar.PolicyID(fmt.Sprint("row", len(s))), cedar.NewPolicyFromAST(p)})
	}
	return s
}

func pattern(filter string) types.Pattern {
	var parts []any
	for i, text := range strings.Split(filter, "*") {
		if i > 0 {
			parts = append(parts, types.Wildcard{})
		}
		if text != "" {
			parts = append(parts, types.String(text))
		}
	}
	return types.NewPattern(parts...)
}

func (c cedarEngine) ask(questions []question) (func(i int) (bool, error), error) {
	asked := make([]cedar.Request, len(questions))
	entities := make([]types.EntityMap, len(questions))
	for i, q := range questions {
		resource := types.NewEntityUID(types.EntityType(q.kind), types.String(q.name))
		asked[i] = cedar.Request{
			Action: types.NewEntityUID("Action", types.String(q.right)), Resource: resource,
			Context: types.NewRecord(types.RecordMap{"right": types.String(q.right)}),
		}
		entities[i] = types.EntityMap{resource: {UID: resource, Attributes: types.NewRecord(types.RecordMap{
			"name": types.String(q.name), "host": types.String(q.host), "login": types.String(q.login),
		})}}
	}
	principals := make([]types.EntityUID, len(c))
	for i, call := range c {
		principals[i] = types.NewEntityUID("Group", types.String(call.group))
	}
	return func(i int) (bool, error) {
		r := asked[i]
		for k, call := range c {
			r.Principal = principals[k]
			decision, diagnostic := cedar.Authorize(call.set, entities[i], r)
			if len(diagnostic.Errors) > 0 {
				return false, fmt.Errorf("cedar: %v", diagnostic.Errors[0])
			}
			if decision != cedar.Allow {
				return false, nil
			}
		}
		return true, nil
	}, nil
}
