package main

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/sdk/v2/physical"
)

func TestStoreRefusesWhatRaftRefuses(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		s, err := openStore(dir, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		key := "logical/x"
		fits := &physical.Entry{Key: key, Value: make([]byte, maxEntry-len(key))}
		if err := s.Put(t.Context(), fits); err != nil {
			t.Errorf("an entry of exactly the limit: %v", err)
		}
		over := &physical.Entry{Key: key, Value: make([]byte, maxEntry-len(key)+1)}
		if err := s.Put(t.Context(), over); err == nil || !strings.Contains(err.Error(), physical.ErrValueTooLarge) {
			t.Errorf("an entry one byte over the limit: got %v, want raft's refusal", err)
		}
		if _, ok := s.(physical.TransactionalBackend); ok {
			t.Error("the store offers transactions")
		}
	}
}
