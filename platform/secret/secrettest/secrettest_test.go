package secrettest

import (
	"strings"
	"testing"
)

type open struct{ token string }

// Half refuses one way alone.
type half struct{ Key [32]byte }

func (half) String() string   { return "half" }
func (half) GoString() string { return "half" }

type outer struct{ in half }

// What shows its secret is found, by the way that shows it.
func TestCheckFindsWhatShows(t *testing.T) {
	_, _ = open{}.token, outer{}.in
	for _, c := range []struct {
		v    any
		want []string
		not  string
	}{
		{open{}, []string{"by %v:", "by %x:", "by an error:", "by slog text:"}, "encoding/json"},
		{half{}, []string{"by %d:", "by encoding/json:", "by slog JSON:", "by encoding/gob:"}, "by %v:"},
		{outer{}, []string{"by %v:", "by %d:"}, "encoding/json"},
		{struct{ N int }{}, []string{"no room"}, "by"},
	} {
		err := check(c.v, true)
		if err == nil {
			t.Errorf("%T: nothing was found", c.v)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%T: %s is not in\n%v", c.v, want, err)
			}
		}
		if strings.Contains(err.Error(), c.not) {
			t.Errorf("%T: %s is in\n%v", c.v, c.not, err)
		}
	}
}
