package policytest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"hash"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// What the host computes, as far as the standard library has it in a line. The rest
// (keys, tokens, passwords, expressions, JSON) is not offered here: use
// [Host.Foreign], or test the built module with `weir plugin test`.
var computed = map[string]func(args []byte) ([]byte, abi.Status){
	"weir.digest": func(args []byte) ([]byte, abi.Status) {
		h := hashOf(args)
		if h == nil {
			return nil, abi.BadArgument
		}
		d := h()
		d.Write(args[4:])
		return d.Sum(nil), abi.OK
	},
	"weir.hmac": func(args []byte) ([]byte, abi.Status) {
		h := hashOf(args)
		if h == nil {
			return nil, abi.BadArgument
		}
		key, data, ok := cut(args[4:])
		if !ok {
			return nil, abi.BadArgument
		}
		d := hmac.New(h, key)
		d.Write(data)
		return d.Sum(nil), abi.OK
	},
	"weir.equal": func(args []byte) ([]byte, abi.Status) {
		one, other, ok := cut(args)
		if !ok {
			return nil, abi.BadArgument
		}
		return []byte{byte(subtle.ConstantTimeCompare(one, other))}, abi.OK
	},
}

func hashOf(args []byte) func() hash.Hash {
	if len(args) < 4 {
		return nil
	}
	return map[uint32]func() hash.Hash{256: sha256.New, 384: sha512.New384, 512: sha512.New}[binary.LittleEndian.Uint32(args)]
}

// cut takes bytes that follow their length.
func cut(args []byte) (first, rest []byte, ok bool) {
	if len(args) < 4 {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(args)
	args = args[4:]
	if uint64(n) > uint64(len(args)) {
		return nil, nil, false
	}
	return args[:n], args[n:], true
}
