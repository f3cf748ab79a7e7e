package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progressAfter is how long work may take before it is said that it goes on.
const progressAfter = 700 * time.Millisecond

// working says on a terminal, and nowhere else, that something takes long; what it returns takes the words away again.
// They are on stderr: stdout is the answer's. How far it has come is asked for each time; nil: that is not known.
func (a *app) working(what string, far func() string) (done func()) {
	if !onTerminal(a.errs) {
		return func() {}
	}
	end := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() { // ends with done
		progress(a.errs, what, far, progressAfter, end)
	})
	return sync.OnceFunc(func() {
		close(end)
		shown.Wait()
	})
}

// progress writes what is done and for how long, every so often until end is closed.
func progress(w io.Writer, what string, far func() string, every time.Duration, end <-chan struct{}) {
	begun := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	written := false
	for {
		select {
		case <-end:
			if written {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		case <-tick.C:
			text := fmt.Sprintf("%s … %s", what, span(time.Since(begun)))
			if far != nil {
				text += far()
			}
			fmt.Fprint(w, "\r\x1b[K"+text)
			written = true
		}
	}
}

// A tint is how a word is shown on a terminal.
type tint string

// The tints: what is well, what somebody should look at, and what does not work.
const (
	plainly tint = ""
	good    tint = "\x1b[32m"
	watch   tint = "\x1b[33m"
	bad     tint = "\x1b[1;31m"
	strong  tint = "\x1b[1m"
)

const untinted = "\x1b[0m"

// painter puts tints on texts that are clean already; the zero value puts none.
type painter bool

// painter is for the answer: colours are for a terminal that has some, and for whoever has not said NO_COLOR.
func (a *app) painter() painter {
	return painter(onTerminal(a.out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func (p painter) paint(t tint, text string) string {
	if !p || t == plainly || text == "" {
		return text
	}
	return string(t) + text + untinted
}
