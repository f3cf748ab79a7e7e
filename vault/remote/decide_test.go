package remote

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

const here = "machines/db01"

var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func userID(n string) snapshot.ID {
	return snapshot.ID{Scope: here, Kind: snapshot.BatchUserKind, Name: n}
}

func policyID(n string) snapshot.ID {
	return snapshot.ID{Scope: here, Kind: snapshot.PolicyKind, Name: n}
}

func knows(ids ...snapshot.ID) knowledge {
	k := knowledge{}
	for _, id := range ids {
		k.known = append(k.known, errand.Known{ID: id, Version: 3, Created: day})
	}
	k.known.sort()
	return k
}

func at(version int64, days int) sight {
	return sight{version: version, created: day.AddDate(0, 0, days)}
}

func seen(s map[snapshot.ID]sight) *view { return &view{scope: here, seen: s} }

func users(n int) []snapshot.ID {
	ids := make([]snapshot.ID, n)
	for i := range ids {
		ids[i] = userID(fmt.Sprintf("u%02d", i))
	}
	return ids
}

// unchanged shows ids as they are known.
func unchanged(ids []snapshot.ID) map[snapshot.ID]sight {
	m := map[snapshot.ID]sight{}
	for _, id := range ids {
		m[id] = at(3, 0)
	}
	return m
}

func with(m map[snapshot.ID]sight, s sight, ids ...snapshot.ID) map[snapshot.ID]sight {
	for _, id := range ids {
		m[id] = s
	}
	return m
}

var (
	isGone   = sight{state: gone, why: &trouble{detail: "it was deleted"}}
	is403    = sight{state: forbidden}
	is500    = sight{state: unknown, why: &trouble{errand.Error, "the server answers 500"}}
	isWrong  = sight{state: refused, why: &trouble{detail: "username: is required"}}
	list403  = &trouble{errand.Forbidden, "permission denied"}
	noMount  = &trouble{errand.Missing, "no handler"}
	halfList = &trouble{errand.Answer, "half an answer"}
)

func TestDecide(t *testing.T) {
	a, b, c, pol := userID("a"), userID("b"), userID("c"), policyID("opcon")
	lists := func(k snapshot.Kind, tr *trouble, s map[snapshot.ID]sight) *view {
		return &view{scope: here, seen: s, lists: map[snapshot.Kind]*trouble{k: tr}}
	}
	cases := []struct {
		name     string
		known    knowledge
		v        *view
		read     []snapshot.ID
		removed  []snapshot.ID
		faults   []string
		code     string
		whole    bool
		doubtful bool
	}{
		{name: "nothing_known_and_nothing_there", v: seen(nil), code: errand.OK, whole: true},
		{name: "first_sight_is_read", v: seen(map[snapshot.ID]sight{b: at(1, 0), a: at(1, 0), pol: at(1, 0)}),
			read: []snapshot.ID{a, b, pol}, code: errand.OK, whole: true},
		{name: "the_same_is_not_read", known: knows(a), v: seen(unchanged([]snapshot.ID{a})), code: errand.OK, whole: true},
		{name: "a_new_version_is_read", known: knows(a), v: seen(map[snapshot.ID]sight{a: at(4, 1)}),
			read: []snapshot.ID{a}, code: errand.OK, whole: true},
		{name: "written_anew_begins_with_version_1", known: knows(a), v: seen(map[snapshot.ID]sight{a: at(1, 1)}),
			read: []snapshot.ID{a}, code: errand.OK, whole: true},
		{name: "a_higher_version_of_the_same_moment_is_newer", known: knows(a), v: seen(map[snapshot.ID]sight{a: at(4, 0)}),
			read: []snapshot.ID{a}, code: errand.OK, whole: true},
		{name: "older_is_refused", known: knows(a), v: seen(map[snapshot.ID]sight{a: at(9, -1)}),
			faults: []string{a.String()}, code: errand.OK, whole: true},
		{name: "absent_from_the_list_is_removed", known: knows(a, b), v: seen(unchanged([]snapshot.ID{a})),
			removed: []snapshot.ID{b}, code: errand.OK, whole: true},
		{name: "deleted_is_removed", known: knows(a, b), v: seen(with(unchanged([]snapshot.ID{a}), isGone, b)),
			removed: []snapshot.ID{b}, code: errand.OK, whole: true},
		{name: "deleted_and_never_known_is_nothing", v: seen(map[snapshot.ID]sight{b: isGone}), code: errand.OK, whole: true},
		{name: "forbidden_on_one_path_is_removed", known: knows(a, b, c), v: seen(with(unchanged([]snapshot.ID{a, b}), is403, c)),
			removed: []snapshot.ID{c}, code: errand.OK, whole: true},
		{name: "forbidden_on_half_is_removed", known: knows(a, b), v: seen(with(unchanged([]snapshot.ID{a}), is403, b)),
			removed: []snapshot.ID{b}, code: errand.OK, whole: true},
		{name: "forbidden_on_more_than_half_removes_nothing", known: knows(a, b, c), v: seen(with(unchanged([]snapshot.ID{a}), is403, b, c)),
			code: errand.Forbidden},
		{name: "forbidden_on_the_only_one_removes_nothing", known: knows(a), v: seen(map[snapshot.ID]sight{a: is403}), code: errand.Forbidden},
		{name: "a_forbidden_list_removes_nothing", known: knows(a, pol), v: lists(snapshot.BatchUserKind, list403, nil), code: errand.Forbidden},
		{name: "nor_what_the_other_list_would_have", known: knows(a, pol), v: lists(snapshot.PolicyKind, list403, map[snapshot.ID]sight{a: isGone}),
			code: errand.Forbidden},
		{name: "what_the_other_list_shows_as_new_is_read", known: knows(pol), v: lists(snapshot.PolicyKind, list403, map[snapshot.ID]sight{a: at(1, 0)}),
			read: []snapshot.ID{a}, code: errand.Forbidden},
		{name: "a_missing_mount_removes_nothing", known: knows(a), v: lists(snapshot.BatchUserKind, noMount, nil), code: errand.Missing},
		{name: "half_a_list_removes_nothing", known: knows(a), v: lists(snapshot.BatchUserKind, halfList, nil), code: errand.Answer},
		{name: "one_failed_answer_hinders_no_other", known: knows(a, b, c), v: seen(with(with(unchanged([]snapshot.ID{a}), is500, b), isGone, c)),
			removed: []snapshot.ID{c}, faults: []string{b.String()}, code: errand.Error},
		{name: "a_refused_document_stays_and_the_rest_is_confirmed", known: knows(a, b), v: seen(with(unchanged([]snapshot.ID{a}), isWrong, b)),
			faults: []string{b.String()}, code: errand.OK, whole: true},
		{name: "losing_all_is_doubtful", known: knows(a), v: seen(nil), removed: []snapshot.ID{a}, code: errand.OK, whole: true, doubtful: true},
		{name: "losing_all_by_deletion_is_doubtful", known: knows(a), v: seen(map[snapshot.ID]sight{a: isGone}),
			removed: []snapshot.ID{a}, code: errand.OK, whole: true, doubtful: true},
		{name: "losing_18_of_19_is_not", known: knows(users(19)...), v: seen(unchanged(users(1))),
			removed: users(19)[1:], code: errand.OK, whole: true},
		{name: "losing_10_of_20_is_not", known: knows(users(20)...), v: seen(unchanged(users(10))),
			removed: users(20)[10:], code: errand.OK, whole: true},
		{name: "losing_11_of_20_is", known: knows(users(20)...), v: seen(unchanged(users(9))),
			removed: users(20)[9:], code: errand.OK, whole: true, doubtful: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := decide(c.known, c.v)
			var removed []snapshot.ID
			for _, r := range d.removed {
				removed = append(removed, r.ID)
				if r.Why == "" {
					t.Errorf("%s is removed without a reason", r.ID)
				}
			}
			var faults []string
			for _, f := range d.faults {
				faults = append(faults, f.Path)
				if f.Detail == "" {
					t.Errorf("%s is a fault without words", f.Path)
				}
			}
			if !reflect.DeepEqual(d.read, c.read) {
				t.Errorf("read: got %v, want %v", d.read, c.read)
			}
			if !reflect.DeepEqual(removed, c.removed) {
				t.Errorf("removed: got %v, want %v", removed, c.removed)
			}
			if !reflect.DeepEqual(faults, c.faults) {
				t.Errorf("faults: got %v, want %v", faults, c.faults)
			}
			if d.scope.Code != c.code || d.scope.Read != c.whole || d.doubtful != c.doubtful {
				t.Errorf("got %q, read %v, doubtful %v; want %q, %v, %v", d.scope.Code, d.scope.Read, d.doubtful, c.code, c.whole, c.doubtful)
			}
		})
	}
}

func TestDecideOnRefusedAndPartial(t *testing.T) {
	a, b := userID("a"), userID("b")
	part := func(s map[snapshot.ID]sight) *view { return &view{scope: here, part: true, seen: s} }
	before := knows(a)
	before.refused = map[snapshot.ID]errand.Refused{
		a: {ID: a, Version: 4, Created: day.AddDate(0, 0, 1), Detail: "as before"},
		b: {ID: b, Version: 1, Created: day, Detail: "as before"},
	}
	failing := at(3, 0)
	failing.source = &trouble{errand.Forbidden, "source: no"}
	again := func(when again) sight {
		return sight{state: refused, version: 4, created: day.AddDate(0, 0, 1), why: &trouble{detail: "no"}, again: when}
	}
	handed := at(4, 1)
	handed.read = true
	for name, c := range map[string]struct {
		k           knowledge
		v           *view
		read        int
		version     int64 // of the only fault, -1 for none
		sweep, open bool
		code        string
	}{
		"a_refused_version_is_not_read":        {before, seen(map[snapshot.ID]sight{a: at(4, 1)}), 0, 4, false, false, errand.OK},
		"nor_where_nothing_is_known":           {before, seen(map[snapshot.ID]sight{a: at(3, 0), b: at(1, 0)}), 0, 1, false, false, errand.OK},
		"the_next_one_is":                      {before, seen(map[snapshot.ID]sight{a: at(5, 2)}), 1, -1, false, false, errand.OK},
		"the_same_number_written_anew_is":      {before, seen(map[snapshot.ID]sight{a: at(4, 2)}), 1, -1, false, false, errand.OK},
		"what_is_in_force_is_not_refused":      {before, seen(map[snapshot.ID]sight{a: at(3, 0)}), 0, -1, false, false, errand.OK},
		"what_was_handed_on_is_settled":        {before, seen(map[snapshot.ID]sight{a: handed}), 0, -1, false, false, errand.OK},
		"older_has_no_version_to_refuse":       {before, seen(map[snapshot.ID]sight{a: at(2, -1)}), 0, 0, false, false, errand.OK},
		"a_source_is_the_documents_fault":      {before, seen(map[snapshot.ID]sight{a: failing}), 0, 0, false, false, errand.OK},
		"refused_for_good":                     {before, seen(map[snapshot.ID]sight{a: again(never)}), 0, 4, false, false, errand.OK},
		"refused_until_the_sweep":              {before, seen(map[snapshot.ID]sight{a: again(later)}), 0, 0, false, false, errand.OK},
		"refused_for_now":                      {before, seen(map[snapshot.ID]sight{a: again(soon)}), 0, 0, false, true, errand.OK},
		"a_part_removes_nothing_it_saw":        {before, part(map[snapshot.ID]sight{a: isGone}), 0, -1, true, false, errand.OK},
		"nor_what_is_forbidden":                {before, part(map[snapshot.ID]sight{a: is403}), 0, -1, true, false, errand.OK},
		"nor_what_is_not_there":                {before, part(map[snapshot.ID]sight{a: {state: absent}}), 0, -1, true, false, errand.OK},
		"what_was_never_known_needs_no_sweep":  {before, part(map[snapshot.ID]sight{b: {state: absent}}), 0, -1, false, false, errand.OK},
		"nor_what_it_did_not_see":              {before, part(nil), 0, -1, false, false, errand.OK},
		"no_answer_leaves_it_open":             {before, part(map[snapshot.ID]sight{a: is500}), 0, 0, false, true, errand.Error},
		"listed_and_without_metadata_is_a_gap": {before, seen(map[snapshot.ID]sight{a: {state: absent}}), 0, 0, false, true, errand.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(c.k, c.v)
			version := int64(-1)
			if len(d.faults) == 1 {
				version = d.faults[0].Version
			}
			if len(d.read) != c.read || version != c.version || len(d.faults) > 1 || len(d.removed) != 0 {
				t.Errorf("got read %v, faults %v, removed %v", d.read, d.faults, d.removed)
			}
			if d.sweep != c.sweep || d.open != c.open || d.scope.Code != c.code || d.scope.Read != (!c.v.part && c.code == errand.OK) {
				t.Errorf("got sweep %v, open %v, %+v", d.sweep, d.open, d.scope)
			}
		})
	}
}

func TestAgree(t *testing.T) {
	ids := users(3)
	all := decide(knows(ids...), seen(nil))
	for name, c := range map[string]struct {
		second *view
		left   int
		code   string
	}{
		"the_same_again":         {seen(nil), 3, errand.OK},
		"one_came_back":          {seen(unchanged(ids[:1])), 2, errand.Answer},
		"all_came_back":          {seen(unchanged(ids)), 0, errand.Answer},
		"no_list_the_second":     {&view{scope: here, lists: map[snapshot.Kind]*trouble{snapshot.BatchUserKind: list403}}, 0, errand.Forbidden},
		"others_went_meanwhile":  {seen(nil), 3, errand.OK},
		"one_without_an_answer":  {seen(map[snapshot.ID]sight{ids[0]: is500}), 2, errand.Error},
		"all_of_them_are_deletd": {seen(with(map[snapshot.ID]sight{}, isGone, ids...)), 3, errand.OK},
	} {
		t.Run(name, func(t *testing.T) {
			first := all
			first.removed = append([]errand.Removed(nil), all.removed...)
			d := agree(first, decide(knows(ids...), c.second))
			if len(d.removed) != c.left || d.scope.Code != c.code || d.scope.Read != (c.code == errand.OK) {
				t.Errorf("got %d removed, %+v; want %d, %q", len(d.removed), d.scope, c.left, c.code)
			}
		})
	}
}

func TestIndexConfirms(t *testing.T) {
	removed := []errand.Removed{{ID: userID("a")}, {ID: policyID("opcon")}}
	none := versions{}
	for name, c := range map[string]struct {
		x    *index
		want bool
	}{
		"no_index":          {nil, false},
		"it_says_nothing":   {&index{}, false},
		"it_names_none":     {&index{names: map[snapshot.Kind]versions{snapshot.BatchUserKind: none, snapshot.PolicyKind: none}}, true},
		"one_kind_only":     {&index{names: map[snapshot.Kind]versions{snapshot.BatchUserKind: none}}, false},
		"it_names_one":      {&index{names: map[snapshot.Kind]versions{snapshot.BatchUserKind: {{"a", 3}}, snapshot.PolicyKind: none}}, false},
		"it_names_an_other": {&index{names: map[snapshot.Kind]versions{snapshot.BatchUserKind: {{"b", 3}}, snapshot.PolicyKind: none}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.x.confirms(removed); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestGone(t *testing.T) {
	now := day
	for name, c := range map[string]struct {
		age  versionAge
		gone bool
	}{
		"current":              {versionAge{}, false},
		"destroyed":            {versionAge{Destroyed: true}, true},
		"deleted_before":       {versionAge{Deletion: day.Add(-time.Hour).Format(time.RFC3339Nano)}, true},
		"deleted_this_second":  {versionAge{Deletion: day.Add(700 * time.Millisecond).Format(time.RFC3339Nano)}, true},
		"to_be_deleted_later":  {versionAge{Deletion: day.Add(time.Hour).Format(time.RFC3339Nano)}, false},
		"deleted_at_no_moment": {versionAge{Deletion: "yesterday"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if why := c.age.gone(now); (why != "") != c.gone {
				t.Errorf("got %q", why)
			}
		})
	}
}
