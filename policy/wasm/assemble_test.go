package wasm

// Modules made by hand, for what compilers do not make.

const (
	i32 = 0x7f
	end = 0x0b
)

// rawModule is a plugin with the exports given and the imports given. Every
// export is a function without parameters or result that does nothing, unless
// it is in code; "memory" is the memory.
type rawModule struct {
	imports []string // "module.name"; their type is imported
	// imported is the type of the imports: parameters and results.
	imported [2]int
	exports  []string
	pages    byte
	start    []byte // code of a start function
	code     map[string][]byte
	types    map[string][2]int
}

func (m rawModule) bytes() []byte {
	types := [][]byte{functionType(m.imported)}
	var imports, functions, exports, codes [][]byte
	for _, i := range m.imports {
		module, name := split(i)
		imports = append(imports, join(name8(module), name8(name), []byte{0, 0}))
	}
	define := func(name string, code []byte) byte {
		t, ok := m.types[name]
		if !ok {
			t = [2]int{0, 0}
		}
		types = append(types, functionType(t))
		functions = append(functions, []byte{byte(len(types) - 1)})
		body := join([]byte{0}, code, []byte{end})
		codes = append(codes, join(length(len(body)), body))
		return byte(len(imports) + len(functions) - 1)
	}
	for _, name := range m.exports {
		exports = append(exports, join(name8(name), []byte{0, define(name, m.code[name])}))
	}
	out := []byte("\x00asm\x01\x00\x00\x00")
	var start []byte
	if m.start != nil {
		start = []byte{define("start", m.start)}
	}
	out = append(out, section(1, types)...)
	out = append(out, section(2, imports)...)
	out = append(out, section(3, functions)...)
	if m.pages > 0 {
		out = append(out, section(5, [][]byte{{0, m.pages}})...)
		exports = append(exports, join(name8("memory"), []byte{2, 0}))
	}
	out = append(out, section(7, exports)...)
	if start != nil {
		out = append(out, 8, 1, start[0])
	}
	return append(out, section(10, codes)...)
}

func functionType(t [2]int) []byte {
	out := []byte{0x60, byte(t[0])}
	for range t[0] {
		out = append(out, i32)
	}
	out = append(out, byte(t[1]))
	for range t[1] {
		out = append(out, i32)
	}
	return out
}

func split(s string) (string, string) {
	for i := range s {
		if s[i] == '.' {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func name8(s string) []byte { return append(length(len(s)), s...) }

func length(n int) []byte {
	var out []byte
	for n >= 0x80 {
		out = append(out, byte(n)|0x80)
		n >>= 7
	}
	return append(out, byte(n))
}

func section(id byte, items [][]byte) []byte {
	if len(items) == 0 {
		return nil
	}
	body := length(len(items))
	for _, i := range items {
		body = append(body, i...)
	}
	return join([]byte{id}, length(len(body)), body)
}

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// smallest is a plugin that does nothing.
func smallest() rawModule {
	return rawModule{
		exports: []string{"proxy_abi_version_0_2_1", "proxy_on_memory_allocate", "proxy_on_request_headers"},
		types:   map[string][2]int{"proxy_on_memory_allocate": {1, 1}, "proxy_on_request_headers": {3, 1}},
		code:    map[string][]byte{"proxy_on_memory_allocate": {0x41, 0}, "proxy_on_request_headers": {0x41, 0}},
		pages:   1,
	}
}
