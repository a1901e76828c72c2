// From probabilities to a class, as the bundle does it and as the threshold on the page asks.

export const UNSURE = -1;

export class Decision {
  /**
   * @param classes Names, in the order of the probabilities.
   * @param threshold Of the bundle: with two classes, the probability of the second one from which
   *   on it is named; null takes the most probable class.
   */
  constructor(classes, threshold) {
    this.classes = classes;
    this.own = threshold;
    this.two = classes.length === 2;
    this.moved = null; // what the page's slider says, null while it stands as the bundle has it
  }

  /** Where the slider stands. */
  get value() {
    return this.moved ?? this.own ?? (this.two ? 0.5 : 0);
  }

  /** The class of probabilities [C], or UNSURE. */
  of(shares) {
    const top = shares.indexOf(Math.max(...shares));
    return this.named(top, this.two ? shares[1] : shares[top]);
  }

  /**
   * @param top The most probable class.
   * @param share Its probability; with two classes, that of the second one.
   */
  named(top, share) {
    const threshold = this.moved ?? this.own;
    if (threshold === null) return top;
    if (this.two) return share >= threshold ? 1 : 0;
    return share >= threshold ? top : UNSURE;
  }

  /** The class of probabilities, the most probable one where it is unsure. */
  likely(shares) {
    const named = this.of(shares);
    return named === UNSURE ? shares.indexOf(Math.max(...shares)) : named;
  }

  name(index) {
    return index === UNSURE ? "unsure" : this.classes[index];
  }

  /** Why it is that class, where that needs words. */
  reason(shares) {
    const value = this.value.toFixed(3), whose = this.moved === null ? "" : "by your threshold, ";
    if (this.two && (this.moved ?? this.own) !== null) {
      return `${whose}${this.classes[1]} is named from ${value} on`;
    }
    if (this.two || this.moved === null) return "";
    return `${whose}a class is named from ${value} on`;
  }

  /**
   * Count labelled pictures, as GET /validation gives them.
   * @returns counts [C][C + 1]: rows are the true classes, the last column is unsure.
   */
  confusion({ labels, tops, probabilities }) {
    const made = this.classes.map(() => new Array(this.classes.length + 1).fill(0));
    labels.forEach((label, row) => {
      const named = this.named(tops[row], probabilities[row]);
      made[label][named === UNSURE ? this.classes.length : named] += 1;
    });
    return made;
  }
}
