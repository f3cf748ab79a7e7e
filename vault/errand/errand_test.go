package errand_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
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
		Known: []errand.Known{
			{ID: id("payroll"), Version: 3, Created: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)},
			{ID: id("reports"), Version: -1 << 63, Turn: 1<<63 - 1, Mark: []byte("mark"), Source: "ldap/static-cred/x"},
			{ID: snapshot.ID{Scope: "platforms/unix", Kind: snapshot.BatchUserKind, Name: "payroll"}, Created: time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)},
			{ID: snapshot.ID{Scope: "platforms/unix", Kind: snapshot.PolicyKind, Name: "opcon"}},
			{},
		},
		Sweep: true,
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
	go func() {
		_, _ = w.Write(keysAnd(t, aTask())) // what is lost the other end misses
		w.Close()
	}()
	keys, got, err := errand.Receive(r)
	if err != nil {
		t.Fatal(err)
	}
	if keys.Batch[0] != 1 || keys.Token[31] != 2 {
		t.Error("the keys are not the ones sent")
	}
	if want := aTask(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
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
	const good, none = `t{"generation":1}`, "k\x00"
	if _, task, err := errand.Receive(bytes.NewReader(frames(good, none))); err != nil || task.Generation != 1 || task.Known != nil {
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
		"two values in one":    {frames(good+"{}", none), nil},
		"an empty frame":       {frames(""), nil},
		"a list for an object": {frames("t[]", none), nil},
		"another kind":         {frames(`m{"generation":1}`, none), nil},
		"nothing known":        {frames(good), io.ErrUnexpectedEOF},
		"two tasks":            {frames(good, good), nil},
		"known without number": {frames(good, "k"), nil},
		"more than there are":  {frames(good, "k\xff\xff\xff\xff\x0f"), nil},
		"fewer than there are": {frames(good, "k\x00\x00"), nil},
		"neither place":        {frames(good, "k\x01\x02\x00\x00\x00\x00\x00\x00\x00"), nil},
		"a long text":          {frames(good, "k\x01\x00\x09\x00\x00\x00\x00\x00\x00"), nil},
		"a second's 2^30 ns":   {frames(good, "k\x01\x00\x00\x00\x00\x80\x80\x80\x80\x04\x00\x00\x00"), nil},
		"the year 292277026":   {frames(good, "k\x01\x00\x00\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00\x00"), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, _, err := errand.Receive(bytes.NewReader(c.in))
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
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
	w := errand.NewWriter(io.Discard)
	for _, m := range []errand.Message{{}, {Put: &sealed.Record{}, Report: &errand.Report{}}} {
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
	var b bytes.Buffer
	b.Write(make([]byte, 64))
	_ = errand.Send(&b, aTask()) // a buffer takes all
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		keys, task, err := errand.Receive(bytes.NewReader(in))
		if (err == nil) != (keys != nil && task != nil) {
			t.Fatalf("keys %v, task %v, error %v", keys != nil, task != nil, err)
		}
		if err != nil {
			return
		}
		again := bytes.NewBuffer(make([]byte, 64))
		if err := errand.Send(again, task); err != nil {
			return // a time of the rest that JSON cannot say again
		}
		if _, second, err := errand.Receive(again); err != nil || !reflect.DeepEqual(second.Known, task.Known) {
			t.Fatalf("the second time: %v, known %+v, was %+v", err, second, task.Known)
		}
	})
}
