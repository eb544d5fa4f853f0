package jsonpath

// The functions here walk over JSON that is known to be valid. Each takes a position
// and returns the one behind what stands there.

// children calls f with each member of an object, or each element of an array, whose
// name is nil, until f returns false. Other values have none.
func children(value []byte, f func(name, child []byte) bool) {
	if value[0] != '{' && value[0] != '[' {
		return
	}
	object := value[0] == '{'
	at := space(value, 1)
	for at < len(value) && value[at] != '}' && value[at] != ']' {
		var name []byte
		if object {
			end := text(value, at)
			name = value[at:end]
			at = space(value, space(value, end)+1) // a colon
		}
		end := skip(value, at)
		if !f(name, value[at:end]) {
			return
		}
		if at = space(value, end); value[at] == ',' {
			at = space(value, at+1)
		}
	}
}

func space(doc []byte, at int) int {
	for at < len(doc) && doc[at] <= ' ' {
		at++
	}
	return at
}

// text passes over a string, or to the end where it is not closed.
func text(doc []byte, at int) int {
	for at++; at < len(doc); at++ {
		switch doc[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return len(doc)
}

// skip passes over a value of any kind.
func skip(doc []byte, at int) int {
	switch doc[at] {
	case '"':
		return text(doc, at)
	case '{', '[':
		return nested(doc, at)
	}
	for at < len(doc) && doc[at] > ' ' && doc[at] != ',' && doc[at] != '}' && doc[at] != ']' {
		at++
	}
	return at
}

func nested(doc []byte, at int) int {
	for depth := 0; at < len(doc); at++ {
		switch doc[at] {
		case '"':
			at = text(doc, at) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
	}
	return at
}
