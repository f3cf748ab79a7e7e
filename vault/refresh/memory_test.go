package refresh

import (
	"testing"

	"batchwarden/vault/snapshot"
)

func TestIDOf(t *testing.T) {
	for _, id := range []snapshot.ID{
		{Scope: "machines/db01", Kind: snapshot.BatchUserKind, Name: "payroll"},
		{Scope: "groups/policies", Kind: snapshot.PolicyKind, Name: "batch_users"},
		{Scope: "groups/batch_users", Kind: snapshot.PolicyKind, Name: "opcon"},
	} {
		if got, ok := idOf(id.String()); !ok || got != id {
			t.Errorf("%s: got %+v, %v", id, got, ok)
		}
	}
	for _, path := range []string{"", "machines/db01", "machines/db01/index", "machines/db01/batch_users/", "/batch_users/payroll"} {
		if got, ok := idOf(path); ok {
			t.Errorf("%q: got %+v", path, got)
		}
	}
}
