package doctor

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// Looks run side by side; one that hangs costs its own time and nobody else's result.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		begun := time.Now()
		say := func(name string, after time.Duration) Look {
			return Look{name, 3 * time.Second, func(context.Context) []Check {
				time.Sleep(after)
				return []Check{{Name: name, Result: OK}}
			}}
		}
		got := Run(t.Context(), []Look{
			say("slow", 2*time.Second),
			{"hung", 3 * time.Second, func(context.Context) []Check { <-hang; return nil }},
			{"heard", 3 * time.Second, func(ctx context.Context) []Check {
				<-ctx.Done()
				return []Check{{Name: "heard", Result: Problem, Reason: "what it knows"}}
			}},
			say("quick", 0),
			{"nothing", time.Second, func(context.Context) []Check { return nil }},
		})
		want := []Check{
			{Name: "slow", Result: OK},
			{Name: "hung", Result: Unknown, Reason: "it was not done within 3s"},
			{Name: "heard", Result: Problem, Reason: "what it knows"},
			{Name: "quick", Result: OK},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if took := time.Since(begun); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		if Count(got, OK) != 2 || Count(got, Problem) != 1 || Count(got, Note) != 0 {
			t.Errorf("counted %+v", got)
		}
		close(hang)
	})
}
