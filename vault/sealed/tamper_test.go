package sealed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"batchwarden/vault/snapshot"
)

// framesOf returns the frames of a file, and where its header ends.
func framesOf(t testing.TB, data []byte) (frames []frame, begin int) {
	t.Helper()
	_, begin, err := parseHeader(data)
	if err != nil {
		t.Fatal(err)
	}
	for at := begin; at < len(data); {
		f, err := frameAt(data, at)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
		at += len(f.whole)
	}
	return frames, begin
}

func join(header []byte, frames []frame) []byte {
	out := slices.Clone(header)
	for _, f := range frames {
		out = append(out, f.whole...)
	}
	return out
}

// TestReplacedFramesAreNeverServed puts frames of other files in the place of each frame, and behind
// each: of an older file of this vault, of the same vault before it was written anew, and of another
// vault with the same keys.
func TestReplacedFramesAreNeverServed(t *testing.T) {
	v := newSample(t)
	other := newSample(t)
	// The same vault, written anew with a change and one more behind it.
	s, _ := v.open(t, v.data)
	if err := s.Rekey(bg, newKey(t, v.arena, "second", 2)); err != nil {
		t.Fatal(err)
	}
	mustSeal(t, s, Change{Remove: []snapshot.ID{user("d", 1).ID}}, user("a", 3), user("b", 3))
	want := dump(t, s, v.arena)
	closing(t, s)
	data, err := os.ReadFile(v.log())
	if err != nil {
		t.Fatal(err)
	}
	frames, begin := framesOf(t, data)
	old, _ := framesOf(t, v.data)
	foreign, _ := framesOf(t, other.data)
	v.states = append(v.states, want)
	check := func(what string, frames []frame) {
		t.Helper()
		tampered := join(data[:begin], frames)
		s, got := v.open(t, tampered)
		v.judge(t, what, s, got, tampered)
		closing(t, s)
	}
	for from, others := range map[string][]frame{"an older file": old, "another vault": foreign} {
		for i := range frames {
			for j, f := range others {
				if slices.Equal(f.whole, frames[i].whole) || (i+j)%3 > 0 && f.kind != putFrame {
					continue
				}
				what := fmt.Sprintf("frame %d of %s, of type %d, ", j, from, f.kind)
				replaced := slices.Clone(frames)
				replaced[i] = f
				if i == len(frames)-1 && f.kind < commitFrame {
					// Behind the last commit a frame without one looks like a write that did not
					// end, unless it was in this file before. It is cut off like one.
					s, got := v.open(t, join(data[:begin], replaced))
					same(t, what+"behind the last commit", got, want)
					closing(t, s)
					continue
				}
				check(what+fmt.Sprintf("in the place of frame %d of type %d", i, frames[i].kind), replaced)
				check(what+fmt.Sprintf("behind frame %d", i), slices.Insert(slices.Clone(frames), i+1, f))
			}
		}
		check("all of "+from+" behind", append(slices.Clone(frames), others...))
	}
}

// TestStrangeCommitsAreReported: a commit of another vault behind the last one is no write that did not
// end, also where zeros in it look like a part that is missing.
func TestStrangeCommitsAreReported(t *testing.T) {
	v := newSample(t)
	for _, zeros := range []int{0, 1, 100} {
		payload := bytes.Repeat([]byte{7}, boxed+commitFixed+itemSize)
		clear(payload[len(payload)-zeros:])
		strange := appendFrame(nil, commitFrame, payload)
		last := v.ends[len(v.ends)-1]
		for what, data := range map[string][]byte{
			"behind the mark":      slices.Concat(v.data, strange),
			"in front of the mark": slices.Concat(v.data[:last], strange, v.data[last:]),
			"instead of the mark":  slices.Concat(v.data[:last], strange),
		} {
			what = fmt.Sprintf("%s, with %d zeros", what, zeros)
			s, got := v.open(t, data)
			same(t, what, got, v.final())
			v.reported(t, what, s, data)
			closing(t, s)
		}
	}
}

// TestSwappedRecordsAreNeverServed exchanges records, heads and secrets between two entries.
func TestSwappedRecordsAreNeverServed(t *testing.T) {
	v := newSample(t)
	frames, begin := framesOf(t, v.data)
	var puts []int
	for i, f := range frames {
		if f.kind == putFrame {
			puts = append(puts, i)
		}
	}
	exchanges := map[string]func(a, b *put){
		"their tags":    func(a, b *put) { a.tag, b.tag = b.tag, a.tag },
		"their heads":   func(a, b *put) { a.head, b.head = b.head, a.head },
		"their secrets": func(a, b *put) { a.secret, b.secret = b.secret, a.secret },
		"all":           func(a, b *put) { a.head, b.head, a.secret, b.secret = b.head, a.head, b.secret, a.secret },
	}
	tried := 0
	for _, i := range puts {
		for _, j := range puts {
			for name, exchange := range exchanges {
				var a, b put
				if i >= j || !a.parse(frames[i].payload) || !b.parse(frames[j].payload) {
					continue
				}
				exchange(&a, &b)
				changed := slices.Clone(frames)
				for at, p := range map[int]*put{i: &a, j: &b} {
					whole := p.append(nil)
					changed[at] = frame{putFrame, whole, whole[frameHead:]}
				}
				data := join(v.data[:begin], changed)
				if slices.Equal(data, v.data) {
					continue // two without secrets
				}
				tried++
				what := fmt.Sprintf("puts %d and %d exchange %s", i, j, name)
				s, got := v.open(t, data)
				v.judge(t, what, s, got, data)
				closing(t, s)
			}
		}
	}
	if tried < 50 {
		t.Errorf("only %d exchanges were tried", tried)
	}
}

// TestCutAnywhere cuts the file at every octet: it is then what it was at an earlier time, or nothing.
func TestCutAnywhere(t *testing.T) {
	v := newSample(t)
	for cut := range v.data {
		s, got := v.open(t, v.data[:cut])
		what := fmt.Sprintf("cut at %d", cut)
		commits := 0
		for commits < len(v.ends) && v.ends[commits] <= cut {
			commits++
		}
		if commits == 0 {
			same(t, what, got, nil)
			v.reported(t, what, s, v.data[:cut])
		} else {
			same(t, what, got, v.states[commits-1])
		}
		closing(t, s)
	}
}

// TestNothingIsDeleted: what is quarantined stays, whatever is found later.
func TestNothingIsDeleted(t *testing.T) {
	v := newSample(t)
	s, _ := v.open(t, v.data)
	closing(t, s)
	kept := map[string]string{}
	for i := range 5 {
		data, err := os.ReadFile(v.log())
		if err != nil {
			t.Fatal(err)
		}
		data[v.header+40+i*17] ^= 4
		if err := os.WriteFile(v.log(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openIn(t, v.dir, v.key, v.arena)
		st := s.Status()
		if len(st.Faults) == 0 || len(st.Quarantined) != i+1 {
			t.Fatalf("damage %d: %+v", i, st)
		}
		mustSeal(t, s, Change{}, user("new", int64(i+1)))
		closing(t, s)
		for _, name := range st.Quarantined {
			text, err := os.ReadFile(filepath.Join(v.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if was, ok := kept[name]; ok && was != string(text) {
				t.Errorf("%s has changed", name)
			}
			kept[name] = string(text)
		}
	}
	if len(kept) != 5 {
		t.Errorf("%d files", len(kept))
	}
}
