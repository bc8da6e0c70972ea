// Elements of the page: those that are there, and new ones.

export const at = (id) => document.getElementById(id);

export const made = (kind, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  return element;
};
