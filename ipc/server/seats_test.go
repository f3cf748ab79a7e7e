package server

import (
	"testing"

	"batchwarden/platform/peer"
)

// TestSeats: one user's connections, and those of all whom nobody knows, leave room for others.
func TestSeats(t *testing.T) {
	s := newSeats(func(p *peer.Connection) bool { return p.UID >= 1000 })
	of := func(uid uint32) *peer.Connection { return &peer.Connection{Peer: peer.Peer{UID: uid}} }
	var taken []func()
	fill := func(uid uint32) (n int) {
		for ; ; n++ {
			stand, over, ok := s.sit(of(uid))
			if !ok {
				t.Fatalf("uid %d: turned away after %d without being told", uid, n)
			}
			taken = append(taken, stand)
			if over {
				return n
			}
		}
	}
	if n := fill(1000); n != maxOfUnknown {
		t.Errorf("an unknown user got %d seats, want %d", n, maxOfUnknown)
	}
	if n := fill(1); n != maxOfUser {
		t.Errorf("a known user got %d seats, want %d", n, maxOfUser)
	}
	unknown := maxOfUnknown
	for uid := uint32(1001); ; uid++ {
		n := fill(uid)
		if unknown += n; n < maxOfUnknown {
			break
		}
	}
	if unknown != maxUnknown {
		t.Errorf("all unknown users got %d seats, want %d", unknown, maxUnknown)
	}
	if stand, over, ok := s.sit(of(2)); !ok || over {
		t.Error("another known user got none")
	} else {
		stand()
	}
	for s.over < maxOver {
		_, _, ok := s.sit(of(1000))
		if !ok {
			t.Fatal("turned away too early")
		}
		taken = append(taken, func() { s.stand(1000, false, true) })
	}
	if _, _, ok := s.sit(of(1000)); ok {
		t.Errorf("more than %d are told that they are too many", maxOver)
	}
	for _, stand := range taken {
		stand()
	}
	if len(s.of) > 0 || s.unknown > 0 || s.over > 0 {
		t.Errorf("left over: %v, %d unknown, %d over", s.of, s.unknown, s.over)
	}
}
