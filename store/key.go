package store

import (
	"strings"

	"github.com/weirmesh/weir/resource"
)

// Keys join their parts by a zero byte, which no part may hold: then keys sort
// as their parts do, and a prefix ends where a part ends.
const separator = "\x00"

// longestPart bounds a name, a tenant, a table and a value's key.
const longestPart = 512

func validPart(s string) bool {
	return s != "" && len(s) <= longestPart && !strings.Contains(s, separator)
}

func resourceKey(ref resource.Ref) []byte {
	return []byte(ref.Kind + separator + ref.Tenant + separator + ref.Name)
}

// referrersPrefix begins the keys of all that refer to a resource.
func referrersPrefix(to resource.Ref) []byte {
	return append(resourceKey(to), separator...)
}

func referrerKey(to, from resource.Ref) []byte {
	return append(referrersPrefix(to), resourceKey(from)...)
}

func valueKey(table, key string) []byte {
	return []byte(table + separator + key)
}

func blobRef(digest string) resource.Ref {
	return resource.Ref{Kind: resource.KindBlob, Name: digest}
}
