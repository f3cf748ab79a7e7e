package errand_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

func id(name string) snapshot.ID {
	return snapshot.ID{Scope: "machines/db01", Kind: snapshot.BatchUserKind, Name: name}
}

func aTask() *errand.Task {
	return &errand.Task{
		Generation: 7,
		Token:      &sealed.Token{Generation: 6, Box: []byte("box")},
		Held:       map[string]int{"machines/db01": 2, "platforms/unix": 2, "": 1},
		Sweep:      true,
	}
}

func someKnown() []errand.Known {
	return []errand.Known{
		{ID: id("payroll"), Version: 3, Created: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)},
		{ID: id("reports"), Version: -1 << 63, Turn: 1<<63 - 1, Mark: []byte("mark"), Source: "ldap/static-cred/x"},
		{ID: snapshot.ID{Scope: "platforms/unix", Kind: snapshot.BatchUserKind, Name: "payroll"}, Created: time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)},
		{ID: snapshot.ID{Scope: "platforms/unix", Kind: snapshot.PolicyKind, Name: "opcon"}},
		{},
	}
}

func keysAnd(t *testing.T, task *errand.Task) []byte {
	t.Helper()
	var b bytes.Buffer
	b.Write(bytes.Repeat([]byte{1}, 32))
	b.Write(bytes.Repeat([]byte{2}, 32))
	if err := errand.Send(&b, task); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTaskArrivesOverAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = w.Write(keysAnd(t, aTask())) // a pipe takes that much
	if err != nil {
		t.Fatal(err)
	}
	keys, got, orders, err := errand.Receive(r)
	if err != nil {
		t.Fatal(err)
	}
	if keys.Batch[0] != 1 || keys.Token[31] != 2 {
		t.Error("the keys are not the ones sent")
	}
	if want := aTask(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := orders.Silent(); err != nil {
		t.Error(err)
	}
	go func() {
		_ = errand.SendKnown(w, slices.Values(someKnown())) // what is lost the other end misses
		w.Close()
	}()
	if known, err := orders.Known(); err != nil || !reflect.DeepEqual(known, someKnown()) {
		t.Errorf("got %+v, %v; want %+v", known, err, someKnown())
	}
	if s := fmt.Sprintf("%v %+v %#v", keys, keys, *keys); strings.Contains(s, "1, 1") || strings.Contains(s, "1 1") {
		t.Errorf("keys print as %s", s)
	}
	keys.Wipe()
	if keys.Batch != [32]byte{} || keys.Token != [32]byte{} {
		t.Error("Wipe left something")
	}
}

func TestReceiveRefuses(t *testing.T) {
	whole := keysAnd(t, aTask())
	zero := keysAnd(t, &errand.Task{Generation: 0})
	long := append(bytes.Clone(whole[:64]), 0xff, 0xff, 0xff, 0xff)
	frames := func(list ...string) []byte {
		b := bytes.Clone(whole[:64])
		for _, f := range list {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
		}
		return b
	}
	const good = `t{"generation":1}`
	if _, task, _, err := errand.Receive(bytes.NewReader(frames(good))); err != nil || task.Generation != 1 || task.Held != nil {
		t.Fatalf("got %+v, %v: what the cases below begin with is not right", task, err)
	}
	cases := map[string]struct {
		in   []byte
		want error
	}{
		"nothing":              {nil, io.EOF},
		"half a key":           {whole[:40], io.ErrUnexpectedEOF},
		"no task":              {whole[:64], io.ErrUnexpectedEOF},
		"half a length":        {whole[:66], io.ErrUnexpectedEOF},
		"half a task":          {whole[:len(whole)-1], io.ErrUnexpectedEOF},
		"something after it":   {append(bytes.Clone(whole), 0), nil},
		"generation 0":         {zero, nil},
		"4 GiB":                {long, errand.ErrTooLong},
		"two values in one":    {frames(good + "{}"), nil},
		"an empty frame":       {frames(""), nil},
		"a list for an object": {frames("t[]"), nil},
		"another kind":         {frames(`m{"generation":1}`), nil},
		"two tasks":            {frames(good, good), nil},
		"known unasked":        {frames(good, oneKnown), nil},
		"fewer than none":      {frames(`t{"generation":1,"held":{"s":-1}}`), nil},
		"too many":             {frames(`t{"generation":1,"held":{"s":100000000}}`), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := errand.Receive(bytes.NewReader(c.in))
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// oneKnown is a frame with one document, in which all is empty.
const oneKnown = "k\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func TestKnownRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		frames []string
		after  string
		want   error
	}{
		"right":                {[]string{oneKnown, oneKnown}, "", nil},
		"none":                 {nil, "", io.ErrUnexpectedEOF},
		"fewer than counted":   {[]string{oneKnown}, "", io.ErrUnexpectedEOF},
		"more than counted":    {[]string{oneKnown, oneKnown, oneKnown}, "", errAny},
		"more in one":          {[]string{"k\x03" + strings.Repeat(oneKnown[2:], 3)}, "", errAny},
		"half a frame":         {[]string{oneKnown}, "\x00\x00\x00\x09k", io.ErrUnexpectedEOF},
		"something after":      {[]string{oneKnown, oneKnown}, "x", errAny},
		"over the bound":       {[]string{oneKnown}, "\x01\x00\x00\x00", errand.ErrTooLong},
		"another kind":         {[]string{oneKnown, `t{"generation":1}`}, "", errAny},
		"an empty frame":       {[]string{""}, "", errAny},
		"without number":       {[]string{"k"}, "", errAny},
		"a frame of none":      {[]string{"k\x00"}, "", errAny},
		"more than there are":  {[]string{"k\xff\xff\xff\xff\x0f"}, "", errAny},
		"fewer than there are": {[]string{oneKnown + "\x00"}, "", errAny},
		"neither place":        {[]string{"k\x01\x02\x00\x00\x00\x00\x00\x00\x00"}, "", errAny},
		"a long text":          {[]string{"k\x01\x00\x09\x00\x00\x00\x00\x00\x00"}, "", errAny},
		"a second's 2^30 ns":   {[]string{"k\x01\x00\x00\x00\x00\x80\x80\x80\x80\x04\x00\x00\x00"}, "", errAny},
		"the year 292277026":   {[]string{"k\x01\x00\x00\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00\x00"}, "", errAny},
	} {
		t.Run(name, func(t *testing.T) {
			var in []byte
			for _, f := range c.frames {
				in = append(binary.BigEndian.AppendUint32(in, uint32(len(f))), f...)
			}
			task := keysAnd(t, &errand.Task{Generation: 1, Held: map[string]int{"": 2}})
			_, _, orders, err := errand.Receive(&inTurn{task, append(in, c.after...)})
			if err != nil {
				t.Fatal(err)
			}
			switch known, err := orders.Known(); {
			case c.want == nil && (err != nil || len(known) != 2):
				t.Errorf("got %+v, %v", known, err)
			case c.want == errAny && err == nil, c.want != nil && c.want != errAny && !errors.Is(err, c.want):
				t.Errorf("got %+v, %v; want %v", known, err, c.want)
			}
		})
	}
}

var errAny = errors.New("any error")

// inTurn yields one text and then, at another read, the other: as a daemon does that waits for a question.
type inTurn [2][]byte

func (r *inTurn) Read(p []byte) (int, error) {
	if len(r[0]) == 0 {
		r[0], r[1] = r[1], nil
	}
	if len(r[0]) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r[0])
	r[0] = r[0][n:]
	return n, nil
}

// TestManyKnown sends more than one frame takes, and more than all may take.
func TestManyKnown(t *testing.T) {
	many := func(n, size int) []errand.Known {
		list := make([]errand.Known, n)
		for i := range list {
			list[i] = errand.Known{ID: id(fmt.Sprintf("%05d", i)), Version: int64(i), Source: strings.Repeat("s", size)}
		}
		return list
	}
	want := many(20_000, 0)
	want[9].Source = strings.Repeat("s", 1<<20)
	var b bytes.Buffer
	if err := errand.SendKnown(&b, slices.Values(want)); err != nil {
		t.Fatal(err)
	}
	_, _, orders, err := errand.Receive(&inTurn{keysAnd(t, &errand.Task{Generation: 1, Held: map[string]int{"machines/db01": len(want)}}), b.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := orders.Known(); err != nil || !slices.EqualFunc(got, want, func(a, b errand.Known) bool {
		return a.ID == b.ID && a.Version == b.Version && a.Source == b.Source && a.Created.Equal(b.Created.UTC())
	}) {
		t.Errorf("got %d, %v", len(got), err)
	}
	if err := errand.SendKnown(io.Discard, slices.Values(many(20, 1<<20))); !errors.Is(err, errand.ErrTooLong) {
		t.Errorf("20 MiB: got %v", err)
	}
}

func TestAnswer(t *testing.T) {
	var b bytes.Buffer
	w := errand.NewWriter(&b)
	rec := &sealed.Record{ID: id("payroll"), Generation: 7, Version: 4, Created: time.Unix(5, 6).UTC(), Head: []byte("head"), Secret: []byte("secret")}
	rep := &errand.Report{Code: errand.OK, Scopes: []errand.Scope{{Scope: "machines/db01", Read: true, Code: errand.OK}},
		Removed: []errand.Removed{{ID: id("old"), Why: "deleted"}}, Faults: []errand.Fault{{Path: "x", Detail: "y"}}, Requests: 9}
	for _, m := range []errand.Message{{Put: rec}, {Put: rec}, {Report: rep}} {
		if err := w.Message(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Message(errand.Message{Put: rec}); err == nil {
		t.Error("a record after the report was written")
	}
	r := errand.NewReader(&b)
	for range 2 {
		if m, err := r.Next(); err != nil || !reflect.DeepEqual(m.Put, rec) || m.Report != nil {
			t.Fatalf("got %+v, %v; want the record", m, err)
		}
	}
	if m, err := r.Next(); err != nil || !reflect.DeepEqual(m.Report, rep) || m.Put != nil {
		t.Fatalf("got %+v, %v; want the report", m, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the report: got %v, want io.EOF", err)
	}
}

func TestAnswerWithoutReportIsNone(t *testing.T) {
	var b bytes.Buffer
	w := errand.NewWriter(&b)
	for _, m := range []errand.Message{{Put: &sealed.Record{ID: id("x")}}, {Report: &errand.Report{Code: errand.OK}}} {
		if err := w.Message(m); err != nil {
			t.Fatal(err)
		}
	}
	for n := range b.Len() {
		r := errand.NewReader(bytes.NewReader(b.Bytes()[:n]))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d octets: got %v, want io.ErrUnexpectedEOF", n, err)
		}
	}
}

func TestTokenDoesNotWait(t *testing.T) {
	var b bytes.Buffer
	w := errand.NewWriter(&b)
	token := &sealed.Token{Generation: 7, Box: []byte("box")}
	for _, m := range []errand.Message{{Put: &sealed.Record{ID: id("x")}}, {Token: token}} {
		if err := w.Message(m); err != nil {
			t.Fatal(err)
		}
	}
	r := errand.NewReader(&b)
	if m, err := r.Next(); err != nil || m.Put == nil {
		t.Fatalf("got %+v, %v; want the record that came before", m, err)
	}
	if m, err := r.Next(); err != nil || !reflect.DeepEqual(m.Token, token) {
		t.Fatalf("got %+v, %v; want the token", m, err)
	}
}

func TestAnswerRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"neither": `m{}`, "both": `m{"token":{},"report":{"code":"ok"}}`, "two values": `m{"report":{"code":"ok"}} {}`, "no JSON": `mx`,
		"no kind": ``, "another kind": `t{"report":{"code":"ok"}}`, "an empty record": `r`, "half a record": "r\x01s\x01k\x01n\x01\x00",
		"more than a record": "r" + strings.Repeat("\x00", 10),
	} {
		t.Run(name, func(t *testing.T) {
			in := append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
			if m, err := errand.NewReader(bytes.NewReader(in)).Next(); err == nil {
				t.Errorf("got %+v", m)
			}
		})
	}
	const report = `m{"report":{"code":"ok"}}`
	in := append(binary.BigEndian.AppendUint32(nil, uint32(len(report))), report...)
	if _, err := errand.NewReader(bytes.NewReader(in)).Next(); err != nil {
		t.Fatalf("a report: %v", err)
	}
	if _, err := errand.NewReader(bytes.NewReader(append(in, 'x'))).Next(); err == nil {
		t.Error("something after the report was let pass")
	}
	const ask, record = `m{"want_known":true}`, "r" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for name, list := range map[string][]string{"asked twice": {ask, ask}, "asked after a record": {record, ask}} {
		var in []byte
		for _, f := range list {
			in = append(binary.BigEndian.AppendUint32(in, uint32(len(f))), f...)
		}
		r := errand.NewReader(bytes.NewReader(in))
		if _, err := r.Next(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m, err := r.Next(); err == nil {
			t.Errorf("%s: got %+v", name, m)
		}
	}
	w := errand.NewWriter(io.Discard)
	for _, m := range []errand.Message{{}, {WantKnown: true, Report: &errand.Report{}}, {Put: &sealed.Record{}, Report: &errand.Report{}}} {
		if err := w.Message(m); err == nil {
			t.Errorf("wrote %+v", m)
		}
	}
}

func TestBounds(t *testing.T) {
	w := errand.NewWriter(io.Discard)
	over := &sealed.Record{Head: make([]byte, errand.MaxFrame)}
	if err := w.Message(errand.Message{Put: over}); !errors.Is(err, errand.ErrTooLong) {
		t.Errorf("a record over the frame's bound: got %v", err)
	}
	biggest := &sealed.Record{Head: make([]byte, sealed.MaxDocument+(256<<10))}
	var err error
	written := 0
	for err == nil && written < 100 {
		err = w.Message(errand.Message{Put: biggest})
		written++
	}
	if !errors.Is(err, errand.ErrTooLong) || written < 10 {
		t.Errorf("after %d of the biggest records: got %v", written, err)
	}
	if err := w.Message(errand.Message{Report: &errand.Report{Code: errand.OK}}); err != nil {
		t.Errorf("no room was left for the report: %v", err)
	}
	many := io.MultiReader(repeat(frameOf(make([]byte, 8<<20)), 40)...)
	r := errand.NewReader(many)
	n := 0
	for err = nil; err == nil; n++ {
		_, err = r.Next()
	}
	if !errors.Is(err, errand.ErrTooLong) || n < 20 {
		t.Errorf("an endless answer: got %v after %d frames", err, n)
	}
}

func frameOf(head []byte) []byte {
	var b bytes.Buffer
	_ = errand.NewWriter(&b).Message(errand.Message{Put: &sealed.Record{Head: head}}) // a buffer takes all; so much does not wait
	return b.Bytes()
}

func repeat(b []byte, n int) []io.Reader {
	rs := make([]io.Reader, n)
	for i := range rs {
		rs[i] = bytes.NewReader(b)
	}
	return rs
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	w := errand.NewWriter(&b)
	_ = w.Message(errand.Message{Put: &sealed.Record{ID: id("x"), Head: []byte("h")}}) // a buffer takes all
	_ = w.Message(errand.Message{Report: &errand.Report{Code: errand.OK}})             // likewise
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 3, 'm', '{', '}'})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := errand.NewReader(bytes.NewReader(in))
		var got []errand.Message
		for {
			m, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			got = append(got, m)
		}
		if len(got) == 0 || got[len(got)-1].Report == nil {
			t.Fatal("an answer without a report was taken for whole")
		}
		// What was understood survives being said again.
		var again bytes.Buffer
		w := errand.NewWriter(&again)
		for _, m := range got {
			if err := w.Message(m); err != nil {
				return // a report's time that JSON cannot say again
			}
		}
		r = errand.NewReader(&again)
		for i := range got {
			m, err := r.Next()
			if err != nil || !reflect.DeepEqual(m.Put, got[i].Put) {
				t.Fatalf("message %d the second time: %+v, %v", i, m, err)
			}
		}
	})
}

func FuzzReceive(f *testing.F) {
	b := bytes.NewBuffer(make([]byte, 64))
	_ = errand.Send(b, aTask()) // a buffer takes all
	first := b.Len()
	_ = errand.SendKnown(b, slices.Values(someKnown())) // likewise
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		keys, task, orders, err := errand.Receive(&inTurn{in[:min(len(in), first)], in[min(len(in), first):]})
		if (err == nil) != (keys != nil && task != nil) {
			t.Fatalf("keys %v, task %v, error %v", keys != nil, task != nil, err)
		}
		if err != nil {
			return
		}
		known, err := orders.Known()
		if err != nil {
			return
		}
		task.Refused, task.Indexes = nil, nil // their times may be such as JSON cannot say again
		again, rest := bytes.NewBuffer(make([]byte, 64)), new(bytes.Buffer)
		if err := errors.Join(errand.Send(again, task), errand.SendKnown(rest, slices.Values(known))); err != nil {
			t.Fatal(err)
		}
		_, _, orders, err = errand.Receive(&inTurn{again.Bytes(), rest.Bytes()})
		if err != nil {
			t.Fatal(err)
		}
		if second, err := orders.Known(); err != nil || !reflect.DeepEqual(second, known) {
			t.Fatalf("the second time: %v, known %+v, was %+v", err, second, known)
		}
	})
}
