package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"runtime/debug"
	"time"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
)

const user = "U"

// document writes the rows as the engine reads them. A faulty one has a fault
// behind the last row.
func document(rows []row, faulty bool) ([]byte, error) {
	type docRow struct {
		Group  string `json:"grp"`
		Type   string `json:"type"`
		Name   string `json:"name"`
		Host   string `json:"host"`
		Login  string `json:"login"`
		Rights string `json:"rights"`
	}
	type docUser struct {
		Groups []string `json:"groups"`
		Rows   []docRow `json:"rows"`
	}
	u := docUser{Rows: make([]docRow, 0, len(rows)), Groups: []string{}}
	for _, r := range rows {
		u.Rows = append(u.Rows, docRow{r.group, r.kind, r.name, r.host, r.login, r.rights})
	}
	if faulty {
		u.Groups = append(u.Groups, "NONE")
	}
	return json.Marshal(map[string]any{"format": 1, "model": "automic", "users": map[string]docUser{user: u}})
}

// oursEngine is the engine that all this is about.
type oursEngine struct{ policy.Engine }

func newOurs(rows []row) (engine, error) {
	doc, err := document(rows, false)
	if err != nil {
		return nil, err
	}
	e, err := automic.Model{}.Parse("rows", doc)
	return oursEngine{e}, err
}

func (o oursEngine) ask(questions []question) (func(i int) (bool, error), error) {
	asked := make([]policy.Request, len(questions))
	for i, q := range questions {
		asked[i] = policy.Request{Subject: policy.Subject{User: user}, Action: q.right}
		asked[i].Object = policy.Object{
			Given: policy.MemberType | policy.MemberName | policy.MemberHost | policy.MemberLogin,
			Type:  q.kind, Name: q.name, Host: q.host, Login: q.login,
		}
	}
	return func(i int) (bool, error) {
		d := o.Decide(&asked[i])
		if d.Code == policy.Invalid {
			return false, errors.New("ours: " + d.Reason)
		}
		return d.Allowed, nil
	}, nil
}

// An indexCost is what it costs to load rows.
type indexCost struct {
	parse  time.Duration // from the document's bytes to the engine
	index  time.Duration // what of that goes to the index
	memory float64       // what the engine holds besides its rows, as a multiple of the rows
	rows   uint64        // the bytes of the rows
}

// measureIndex loads the rows again and again. A document with a fault is
// refused after all rows were read and before they are indexed: the time of
// the index is what a sound one takes longer.
func measureIndex(rows []row, times int) (c indexCost, err error) {
	sound, err := document(rows, false)
	if err != nil {
		return c, err
	}
	faulty, err := document(rows, true)
	if err != nil {
		return c, err
	}
	load := func(doc []byte) (*automic.Policy, time.Duration, error) {
		// The collector rests, so that it does not do for one load what it
		// should have done for another.
		runtime.GC()
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		begun := time.Now()
		p, err := automic.Parse("rows", doc)
		return p, time.Since(begun), err
	}
	if _, _, err := load(sound); err != nil { // gets the memory from the system
		return c, err
	}
	refused := time.Duration(math.MaxInt64)
	c.parse = refused
	for range times {
		before := heap()
		p, took, err := load(sound)
		if err != nil {
			return c, err
		}
		c.parse = min(c.parse, took)
		held := float64(heap()) - float64(before)
		if c.rows, err = rowBytes(p); err != nil {
			return c, err
		}
		c.memory = held/float64(c.rows) - 1
		runtime.KeepAlive(p)
		if _, took, err = load(faulty); err == nil {
			return c, errors.New("the document with a fault was not refused")
		}
		refused = min(refused, took)
	}
	runtime.KeepAlive(sound)
	c.index = max(0, c.parse-refused)
	return c, nil
}

// heap returns the bytes that are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // the first may end a collection that had begun before
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// rowBytes returns the memory of the engine's rows: the structures and the
// texts of their filters.
func rowBytes(p *automic.Policy) (bytes uint64, err error) {
	defer func() { // reflect panics when the engine's fields have other names
		if r := recover(); r != nil {
			err = fmt.Errorf("finding the engine's rows: %v", r)
		}
	}()
	rows := reflect.ValueOf(p).Elem().FieldByName("users").MapIndex(reflect.ValueOf(user)).
		Elem().FieldByName("from").Index(0).Elem().FieldByName("rows")
	bytes = uint64(rows.Cap()) * uint64(rows.Type().Elem().Size())
	for i := range rows.Len() {
		for _, column := range rows.Index(i).Fields() {
			if column.Kind() == reflect.String {
				bytes += uint64(column.Len())
			}
		}
	}
	return bytes, nil
}
